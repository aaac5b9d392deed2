#!/bin/sh
# cgi-bin/fails.sh
echo "no shop today: Ärger" >&2
exit 3
