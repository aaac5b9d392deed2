"""Where a server's control socket lives, so that `scgi status`, `reload` and `stop` find it: a folder and a name.

The name is that of the first address. The folder is `$RUNTIME_DIRECTORY` (which systemd makes), else
`$XDG_RUNTIME_DIR/scgi`, else, for root, `/run/scgi`; it is ours and nobody else can write there, so it is never /tmp.
Who looks for a server looks into these, and into the folders in /run where systemd makes others. Imports `errors` and
`net.address`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import stat
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

from scgi.errors import ConfigError, ScgiError
from scgi.net.address import Address, parse_address

NOWHERE: Final = "none"  # the setting that switches the control socket off
TELLS_PEERS: Final = sys.platform == "linux"  # whether a socket can tell who has connected (SO_PEERCRED)
_RUN: Final = Path("/run")
_SUFFIX: Final = ".control"
_NAME_LIMIT: Final = 60  # bytes; a longer name is cut, and a digest of the whole makes up for the rest
_OTHERS: Final = 0o022 if TELLS_PEERS else 0o077  # what nobody else may have on the folder
_PATIENCE: Final = 1.0  # seconds for a sign of life


def place_control(setting: str, first: Address, environ: Mapping[str, str]) -> tuple[Path | None, str]:
    """Where the server puts its control socket. None: nowhere, with the reason ("" if that was asked for).

    `setting` is a path, "none", or "" for the usual place, whose folder is made (0700) if it is missing; `first` is the
    first listener's address as it was bound.
    """
    if setting == NOWHERE:
        return None, ""
    if setting:
        return Path(setting), ""
    reasons = []
    for folder, is_given in _own_folders(environ):
        reason = "" if is_given else _make(folder)
        reason = reason or _wrong(folder, os.geteuid())
        if not reason:
            path = folder / control_name(first)
            try:
                parse_address(f"unix:{path}")
                return path, ""
            except ConfigError as error:
                reason = str(error).removeprefix("address: ")
        reasons.append(reason)
    return None, "; ".join(reasons) or "XDG_RUNTIME_DIR is not set, and only root has /run/scgi"


def find_control(address: str | None, setting: str, environ: Mapping[str, str]) -> Path:
    """The control socket of the server whose first address this is; without one, of the only server there is.

    Raises `ScgiError` with a sentence that names the servers there are.
    """
    if setting == NOWHERE:
        raise ConfigError("control: 'none' is a server's setting; a server without a control socket cannot be asked")
    if setting:
        return Path(setting)
    if address:
        wanted = dict.fromkeys(control_name(one) for one in _spellings(parse_address(address)))
        for name in wanted:
            for folder in _all_folders(environ):
                if _is_live(folder / name):
                    return folder / name
    found = [path for folder in _all_folders(environ) for path in sorted(folder.glob(f"*{_SUFFIX}")) if _is_live(path)]
    if len(found) == 1 and not address:
        return found[0]
    there_are = ", ".join(_address_text(path) for path in found)
    if not found:
        closed = os.path.isdir(_RUN / "scgi") and not os.access(_RUN / "scgi", os.R_OK | os.X_OK)
        hint = f"; {_RUN / 'scgi'} is for root to look into" if closed else ""
        raise ScgiError(f"no server was found that this user may ask{hint}; --control PATH names a socket elsewhere")
    if address:
        raise ScgiError(f"no server was found whose first address is {address}; there are: {there_are}")
    raise ScgiError(f"there are {len(found)} servers; name one by its first address: {there_are}")


def control_name(address: Address) -> str:
    """The file name that stands for an address: `127.0.0.1:4000.control`, `unix:%2Frun%2Fx.sock.control`."""
    name = quote(str(address), safe=":[]", errors="surrogateescape")
    if len(name) > _NAME_LIMIT:
        digest = hashlib.sha256(name.encode()).hexdigest()[:16]
        name = f"{name[: _NAME_LIMIT - len(digest) - 1]}~{digest}"
    return name + _SUFFIX


def _address_text(path: Path) -> str:
    return unquote(path.name.removesuffix(_SUFFIX), errors="surrogateescape")


def _spellings(address: Address) -> Iterator[Address]:
    """The address as a server that can be reached there may have bound it."""
    if address.kind == "systemd":
        raise ConfigError("address: name the address itself, not 'systemd'")
    if address.kind == "unix":
        yield Address("unix", path=os.path.abspath(address.path))
        return
    yield address
    with contextlib.suppress(OSError):
        for *_, where in socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM):
            yield Address("tcp", str(where[0]), address.port)
    yield Address("tcp", "0.0.0.0", address.port)
    yield Address("tcp", "::", address.port)


def _own_folders(environ: Mapping[str, str]) -> Iterator[tuple[Path, bool]]:
    """Where this user's servers may put their sockets, the best place first, and whether it is there already."""
    runtime = environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]  # systemd lists several with colons
    if os.path.isabs(runtime):
        yield Path(runtime), True
    session = environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(session):
        yield Path(session, "scgi"), False
    if os.geteuid() == 0:
        yield _RUN / "scgi", False


def _all_folders(environ: Mapping[str, str]) -> list[Path]:
    """Where servers may be found that this user may ask."""
    folders = [*(folder for folder, _ in _own_folders(environ)), _RUN / "scgi"]
    with contextlib.suppress(OSError):
        folders += sorted(path for path in _RUN.iterdir() if not _wrong(path, owner=None))
    return [folder for folder in dict.fromkeys(folders) if os.path.isdir(folder)]


def _make(folder: Path) -> str:
    """Make a folder of ours if it is missing; returns what is wrong with the one it is in."""
    if wrong := _wrong(folder.parent, os.geteuid()):
        return wrong
    try:
        folder.mkdir(0o700, exist_ok=True)
    except OSError as error:
        return f"{folder} cannot be made: {error.strerror}"
    return ""


def _wrong(folder: Path, owner: int | None) -> str:
    """What is wrong with a folder whose sockets are to be trusted; "" if nothing."""
    try:
        found = os.lstat(folder)
    except OSError as error:
        return f"{folder}: {error.strerror}"
    if not stat.S_ISDIR(found.st_mode):
        return f"{folder} is not a folder"
    if owner is not None and found.st_uid != owner:
        return f"{folder} belongs to another user"
    return f"{folder} is open to others (mode {found.st_mode & 0o7777:04o})" if found.st_mode & _OTHERS else ""


def _is_live(path: Path) -> bool:
    """Whether a server that this user may trust listens there."""
    me = os.geteuid()
    try:
        found = os.lstat(path)
        if not stat.S_ISSOCK(found.st_mode) or (me and found.st_uid not in (0, me)):
            return False
        Address("unix", path=str(path)).connect(_PATIENCE).close()
    except (TimeoutError, BlockingIOError):  # it is there, and others wait to be heard already
        return True
    except OSError:
        return False
    return True
