"""Our client, asked for one request after the other: `ADDRESS PATH UPLOAD TIMEOUT` a line in, what it found out."""

import json
import sys
import time

from scgi.client.load import Stop, run_load
from scgi.client.plan import Plan, template
from scgi.errors import ScgiError
from scgi.net.address import parse_address

if __name__ == "__main__":
    for line in sys.stdin:
        address, path, upload, timeout = line.split()
        began = time.monotonic()
        method = "POST" if int(upload) else "GET"
        request = template(method, path, headers={}, variables={}, body=bytes(int(upload)))
        try:
            tally = run_load(Plan(parse_address(address), request, 1, requests=1, timeout=float(timeout)), Stop())
            found = {"statuses": list(tally.statuses), "failures": list(tally.failures)}
        except ScgiError as error:
            found = {"statuses": [], "failures": [str(error)]}
        print(json.dumps({**found, "seconds": time.monotonic() - began}), flush=True)
