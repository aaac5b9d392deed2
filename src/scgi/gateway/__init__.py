"""HTTP in, SCGI out: an ASGI application that passes requests on to an SCGI server.

``Gateway`` is the application, ``run_gateway`` runs it under uvicorn on a socket that is already
bound. ``request.py`` turns an HTTP request into variables, ``relay.py`` moves the bytes, ``run.py``
is the only place that knows uvicorn. May import client, net, protocol, errors.
"""

from scgi.gateway.relay import Gateway
from scgi.gateway.run import run_gateway

__all__ = ["Gateway", "run_gateway"]
