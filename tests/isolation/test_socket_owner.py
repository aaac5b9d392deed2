"""A unix socket gets its owner before anybody may use it, and nothing else ever gets it in its stead."""

from __future__ import annotations

import os
import stat
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from scgi.errors import ListenError
from scgi.net.address import Address
from scgi.net.listen import open_listener
from support.identity import IS_ROOT, in_child, needs_root


@pytest.fixture
def path(short_tmp: Path) -> Path:
    short_tmp.chmod(0o777)
    return short_tmp / "socket"


def open_there(path: Path, owner: tuple[int, int] | None, mode: int = 0o660) -> Any:
    return closing(open_listener(Address("unix", path=str(path)), socket_mode=mode, socket_owner=owner))


def look(path: Path) -> tuple[int, int, int]:
    found = path.lstat()
    return found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)


@needs_root
@pytest.mark.parametrize(
    ("owner", "expected"), [(None, (0, 0)), ((65534, -1), (65534, 0)), ((-1, 33), (0, 33)), ((1, 2), (1, 2))]
)
def test_the_socket_belongs_to_whom_it_should_and_goes_at_the_end(
    path: Path, owner: tuple[int, int] | None, expected: tuple[int, int]
) -> None:
    with open_there(path, owner, 0o640):
        assert look(path) == (*expected, 0o640)
    assert not path.exists()


@needs_root
def test_nobody_may_use_it_before_it_has_its_owner(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def watched(change: Any) -> Any:
        def watch(*arguments: Any, **options: Any) -> None:
            seen.append(look(path))
            change(*arguments, **options)
            seen.append(look(path))

        return watch

    for name in ("chown", "chmod"):
        monkeypatch.setattr(os, name, watched(getattr(os, name)))
    with open_there(path, (1, 2)):
        assert seen == [(0, 0, 0), (1, 2, 0), (1, 2, 0), (1, 2, 0o660)]


@needs_root
@pytest.mark.parametrize("at", ["open", "chown", "chmod"])
def test_what_somebody_puts_in_its_place_is_left_as_it_is(path: Path, at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root starts the server; the folder is another's, who exchanges the socket for a link at the worst moment."""
    precious = path.parent / "precious"
    precious.write_text("root's")
    precious.chmod(0o600)
    real = getattr(os, at)

    def exchange_first(*arguments: Any, **options: Any) -> Any:
        if not path.exists():  # the folder is held before there is a socket
            return real(*arguments, **options)
        monkeypatch.setattr(os, at, real)
        path.unlink()
        path.symlink_to(precious)
        return real(*arguments, **options)

    monkeypatch.setattr(os, at, exchange_first)
    try:
        open_there(path, (1, 2)).__enter__().close()
    except ListenError as refused:
        assert "somebody has just replaced it" in str(refused)
    assert look(precious) == (0, 0, 0o600)
    assert path.is_symlink()  # not ours to remove


def test_an_ordinary_user_can_give_it_to_nobody_else_and_leaves_no_socket(path: Path) -> None:
    def attempt() -> str:
        with pytest.raises(ListenError) as refused:
            open_there(path, (0, 0))
        return str(refused.value)

    assert "not permitted; only root can" in in_child(attempt, as_nobody=True)
    assert not path.exists()


@pytest.mark.skipif(not IS_ROOT, reason="only root can make itself a user with two groups")
def test_an_ordinary_user_can_give_it_to_a_group_of_his(path: Path) -> None:
    def give() -> Any:
        os.setgroups([33])
        os.setgid(65534)
        os.setuid(65534)
        with open_there(path, (-1, 33)):
            return look(path)

    assert in_child(give) == [65534, 33, 0o660]
