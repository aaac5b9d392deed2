#!/bin/sh
# cgi-bin/moved.sh
if [ "$QUERY_STRING" = away ]; then target=http://www.example.org/new; else target="/place.sh/moved?here"; fi
printf 'Location: %s\r\n\r\n' "$target"
