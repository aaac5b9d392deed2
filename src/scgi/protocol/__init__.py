"""Bytes and text of SCGI: request heads and CGI response heads, built and parsed.

Nothing here knows a socket or a clock, so that server, client, gateway and tests share one set of rules.
"""
