"""After privileges drop: only the target uid, gid, groups; NoNewPrivs; there is no way back."""

from __future__ import annotations

import signal
from pathlib import Path

from support import scgi_request, wait_until
from support.generations import pools_of, workers_of
from support.room import Room


def identity(pid: int) -> dict[str, list[str]]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    found = {line.partition(":")[0]: line.partition(":")[2].split() for line in lines}
    return {
        name: found[name] for name in ("Uid", "Gid", "Groups", "NoNewPrivs", "CapPrm", "CapEff", "CapInh", "CapAmb")
    }


def test_pool_and_workers_are_the_users_alone_for_good_and_so_are_those_of_new_code(unix_room: Room) -> None:
    options = [] if unix_room.as_root else ["--no-new-privileges"]
    server = unix_room.serve("pages.py", *options, workers=2)
    for _ in range(2):
        uid, gid = str(unix_room.person.uid), str(unix_room.person.gid)
        for pid in (*pools_of(server), *workers_of(server)):
            found = identity(pid)
            assert found["Uid"] == [uid] * 4 and found["Gid"] == [gid] * 4
            assert found["NoNewPrivs"] == ["1"]
            assert {int(found[name][0], 16) for name in ("CapPrm", "CapEff", "CapInh", "CapAmb")} == {0}
            if unix_room.as_root:
                assert found["Groups"] in ([], [gid])
        assert "done" not in scgi_request(server.address, path="/climb").text
        before = workers_of(server)
        server.signal(signal.SIGHUP)
        wait_until(lambda before=before: len(workers_of(server)) == 2 and not set(before) & set(workers_of(server)))
    assert not unix_room.as_root or identity(server.pid)["Uid"] == ["0"] * 4
