"""What web servers are told so that they speak SCGI with us, and a probe that finds what they were told wrong.

`site.py` is what a person wants; `nginx.py`, `apache.py`, `lighttpd.py` and `systemd.py` each write it down in the
language of one program. `probe.py` is an SCGI server for the length of a check, `check.py` asks a running web server
for its pages and judges what arrived at both ends, `advice.py` knows which line to change. What the configurations
hold was found out with real web servers, and `tests/interop` runs them.

Imports `net`, `protocol`, `errors`.
"""
