"""As systemd starts a server: the socket is descriptor 3, the variables say so. Its own port is not used."""

import os
import socket
import sys

if len(sys.argv) == 2:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", int(sys.argv[1])))
    sock.listen()
    os.dup2(sock.fileno(), 3)
    os.set_inheritable(3, True)  # dup2 leaves it as it is if it was 3 already
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
    os.execv(sys.executable, [sys.executable, __file__, "1", "again"])

from scgi.scgi_server import SCGIServer

SCGIServer(port=int(sys.argv[1])).serve()
