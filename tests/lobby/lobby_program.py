"""A pool without workers, around a lobby: it tends it, and does what it is told, a line at a time.

Arguments: the descriptors of the entrance (to take, to give), of the exit (the same), of the bell; the patience as
JSON. What it is asked is answered in a line.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import socket
import sys
import time

from scgi.net.stream import Patience
from scgi.protocol.request import Limits
from scgi.status.scoreboard import Scoreboard
from scgi.supervisor.lobby import Lobby, Passages


def main() -> None:
    logging.basicConfig(level=logging.DEBUG, stream=sys.stderr, format="%(levelname)s %(message)s")
    signal.signal(signal.SIGCHLD, lambda *_: None)
    *descriptors, bell = map(int, sys.argv[1:6])
    ends = [socket.socket(fileno=fd) for fd in descriptors]
    board = Scoreboard(1)
    patience = Patience(**json.loads(sys.argv[6]))
    passages = Passages((ends[0], ends[1]), (ends[2], ends[3]))
    lobby = Lobby(board, bell, patience, Limits(), True, passages)
    while True:
        lobby.tend(time.monotonic(), list, -1)
        if not select.select([0], [], [], 0.01)[0]:
            continue
        order, *arguments = os.read(0, 100).decode().split() or ["quit"]
        if order == "quit":
            return
        said: object = None
        if order == "figures":
            said = list(board.lobby())
        elif order == "pid":
            said = lobby.pid
        elif order == "busy":
            said = lobby.is_busy()
        else:
            getattr(lobby, order)(*map(float, arguments))
        print(json.dumps(said), flush=True)


main()
