"""Listening sockets: opened with care, inherited from systemd, and taken away without harm to others.

A unix socket never has a wider mode than asked for, not for an instant; only a dead socket is ever unlinked before
binding, and only our own at the end. Imports `errors` and `net.address`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scgi.errors import ListenError
from scgi.net.address import Address

DEFAULT_BACKLOG = 2048
_HOLDS = hasattr(os, "O_PATH") and os.path.isdir("/proc/self/fd")  # a file can be held, whatever becomes of its name
_TURN = 3.0  # seconds to wait for another server that is about to listen in the same folder
_FIRST_INHERITED = 3  # SD_LISTEN_FDS_START of sd_listen_fds(3)


@dataclass(slots=True)
class Listener:
    """A listening socket and what may be done with it.

    `owned` says that nobody else serves this socket: it may be drained and shut down at the end. One that systemd or
    a caller lent is left as it is. `identity` is the device and inode of a unix socket that we made.
    """

    sock: socket.socket
    address: Address
    owned: bool = True
    identity: tuple[int, int] | None = None

    def unlink(self) -> None:
        """Remove our unix socket's name, if the name still means our socket."""
        if self.identity is None:
            return
        with contextlib.suppress(OSError):
            found = os.lstat(self.address.path)
            if (found.st_dev, found.st_ino) == self.identity:
                os.unlink(self.address.path)
        self.identity = None

    def close(self) -> None:
        self.unlink()
        self.sock.close()


def open_listener(
    address: Address,
    *,
    backlog: int = DEFAULT_BACKLOG,
    socket_mode: int = 0o660,
    socket_owner: tuple[int, int] | None = None,
) -> Listener:
    """Bind and listen. Raises `ListenError` with one sentence that says why not.

    A unix socket gets the mode, and the owner: user and group by number, -1 for what is to stay.
    """
    if address.kind == "unix":
        return _open_unix(address, backlog, socket_mode, socket_owner)
    return _open_tcp(address, backlog)


def _open_tcp(address: Address, backlog: int) -> Listener:
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise ListenError(f"cannot listen on {address}: the host name is not known ({error.strerror})") from None
    family, kind, protocol, _, where = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(where)
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        raise ListenError(_why_not(address, error)) from None
    host, port = sock.getsockname()[:2]
    return Listener(sock, Address("tcp", host, port))


def _open_unix(address: Address, backlog: int, mode: int, owner: tuple[int, int] | None) -> Listener:
    address = Address("unix", path=os.path.abspath(address.path))
    with _one_at_a_time(address):
        _clear_dead_socket(address)
        return _bind_unix(address, backlog, mode, owner)


@contextlib.contextmanager
def _one_at_a_time(address: Address) -> Iterator[None]:
    """A socket that another server of ours has bound but does not listen on yet looks dead: it holds its folder."""
    import fcntl  # not on Windows, where clients use this file

    try:
        folder = os.open(os.path.dirname(address.path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:  # it may be searched but not read
        yield
        return
    try:
        deadline = time.monotonic() + _TURN
        while time.monotonic() < deadline:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno != errno.EWOULDBLOCK:
                    break  # this file system has no locks
                time.sleep(0.01)
        yield
    finally:
        os.close(folder)


def _bind_unix(address: Address, backlog: int, mode: int, owner: tuple[int, int] | None) -> Listener:
    path = address.path
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o777)  # the name appears with no permission at all, then gets those asked for
    try:
        sock.bind(path)
    except OSError as error:
        sock.close()
        raise ListenError(_why_not(address, error)) from None
    finally:
        os.umask(before)
    listener = Listener(sock, address)
    try:
        _settle(listener, mode, owner)
        sock.listen(backlog)
    except OSError as error:
        listener.close()
        raise error if isinstance(error, ListenError) else ListenError(_why_not(address, error)) from None
    return listener


def _settle(listener: Listener, mode: int, owner: tuple[int, int] | None) -> None:
    """Give a new unix socket its owner, and only then permissions; never anything that others put in its place."""
    path, fd = listener.address.path, -1
    try:
        if _HOLDS:
            fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
            path = f"/proc/self/fd/{fd}"
        found = os.lstat(path) if fd < 0 else os.fstat(fd)
        if not stat.S_ISSOCK(found.st_mode) or found.st_uid != os.geteuid():
            raise ListenError(f"cannot listen on {listener.address}: somebody has just replaced it")
        listener.identity = (found.st_dev, found.st_ino)
        if owner is not None:
            try:
                os.chown(path, *owner, follow_symlinks=fd >= 0)
            except OSError as error:
                raise ListenError(
                    f"cannot give {listener.address} another owner: {error.strerror}; "
                    "only root can do that, and who is in a group can give that group"
                ) from None
        os.chmod(path, mode)
    finally:
        if fd >= 0:
            os.close(fd)


def _clear_dead_socket(address: Address) -> None:
    """Unlink a socket that nobody listens on; refuse anything else that stands in the way."""
    try:
        found = os.lstat(address.path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise ListenError(_why_not(address, error)) from None
    if not stat.S_ISSOCK(found.st_mode):
        raise ListenError(f"cannot listen on {address}: there is something that is not a socket; it was left alone")
    try:
        address.connect(1.0).close()
    except ConnectionRefusedError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(address.path)
        return
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.ETIMEDOUT) and not isinstance(error, TimeoutError):
            raise ListenError(_why_not(address, error)) from None
    raise ListenError(
        f"cannot listen on {address}: a live server listens there already; stop it or choose another path"
    )


def _why_not(address: Address, error: OSError) -> str:
    hints = {
        errno.EADDRINUSE: "the address is in use; stop what listens there or choose another",
        errno.EACCES: "not permitted"
        + ("; ports below 1024 need privileges" if address.kind == "tcp" else " to write to that folder"),
        errno.EPERM: "not permitted",
        errno.EADDRNOTAVAIL: "this machine has no such address",
        errno.ENOENT: f"the folder {Path(address.path).parent} does not exist",
        errno.ENOTDIR: f"{Path(address.path).parent} is not a folder",
        errno.EROFS: "the file system is read-only",
    }
    reason = hints.get(error.errno or 0, error.strerror or str(error))
    return f"cannot listen on {address}: {reason}"


def adopt(sock: socket.socket, *, owned: bool, backlog: int = DEFAULT_BACKLOG) -> Listener:
    """Take a bound socket that somebody else made; makes it listen and blocking."""
    sock.setblocking(True)
    sock.listen(backlog)
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return Listener(sock, Address("unix", path=os.fsdecode(name)), owned)
    return Listener(sock, Address("tcp", *name[:2]), owned)


def inherited_listeners(backlog: int = DEFAULT_BACKLOG) -> list[Listener]:
    """The sockets that systemd hands over (sd_listen_fds(3)); an empty list where there are none.

    Takes LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES out of the environment, so that no child takes them for its own.
    Raises `ListenError` for a count that is no number or a descriptor that is not a listening stream socket.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = os.environ.get("LISTEN_FDS", "")
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    if not (count.isascii() and count.isdigit()):
        raise ListenError(f"LISTEN_FDS: expected a whole number, got {count!r}")
    listeners = []
    for number in range(_FIRST_INHERITED, _FIRST_INHERITED + int(count)):
        try:
            os.set_inheritable(number, False)
            sock = socket.socket(fileno=number)
        except OSError as error:
            raise ListenError(f"descriptor {number} from systemd is not a socket ({error.strerror})") from None
        if sock.type != socket.SOCK_STREAM:
            raise ListenError(f"descriptor {number} from systemd is not a stream socket")
        listeners.append(adopt(sock, owned=False, backlog=backlog))
    return listeners
