#!/bin/sh
# cgi-bin/place.sh
printf 'Content-Type: text/plain\r\n\r\n'
for argument in "$@"; do echo "argument: $argument"; done
echo "PATH_INFO: $PATH_INFO"
echo "PATH_TRANSLATED: $PATH_TRANSLATED"
echo "SCRIPT_NAME: $SCRIPT_NAME"
echo "folder: $(pwd)"
