"""A process that is nothing but the gateway: ADDRESS UPSTREAM [OPTION=NUMBER…]; says when it has returned."""

import json
import logging
import socket
import sys

from scgi.gateway import run_gateway
from scgi.net.address import parse_address

if __name__ == "__main__":
    logging.basicConfig(level="INFO", format="%(levelname)s %(name)s %(message)s")
    listen, upstream, *options = sys.argv[1:]
    sock = socket.create_server(("127.0.0.1", parse_address(listen).port))
    given = {name: json.loads(value) for name, _, value in (option.partition("=") for option in options)}
    run_gateway(sock, parse_address(upstream), **given)
    print("returned", flush=True)
