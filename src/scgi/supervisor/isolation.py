"""Who the application is, which folder is its root, how much it may take: decided in one place, done once, for good.

`resolve` looks everything up and refuses what cannot be, before anything is started. `isolate` runs in the process
that is about to import the application, while that has a single thread: a list of steps in the one order that works.
At its end it tries to climb back, and must fail.

Imports `errors` and its neighbour `prctl`.
"""

from __future__ import annotations

import contextlib
import ctypes
import grp
import importlib
import logging
import os
import pwd
import resource
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from scgi.errors import ConfigError
from scgi.supervisor.prctl import PR_GET_NO_NEW_PRIVS, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS, prctl

log = logging.getLogger("scgi.server")

_KEPT: Final = frozenset({"PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ"})  # and LC_*
_UNKNOWN: Final = -1
_LIMITS: Final[dict[str, int]] = {
    name.removeprefix("RLIMIT_").lower(): getattr(resource, name)
    for name in dir(resource)
    if name.startswith("RLIMIT_")
}


@dataclass(frozen=True, slots=True)
class Isolation:
    """What `isolate` does. None leaves a thing as it is; `user` and `home` go into the environment."""

    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] | None = None
    user: str = ""
    home: str = ""
    chroot: str = ""
    umask: int | None = None
    limits: tuple[tuple[int, int, int], ...] = ()  # resource, soft, hard
    no_new_privileges: bool = False
    clear_env: bool = False


# What was asked for, in numbers.


def resolve(
    *,
    user: str = "",
    group: str = "",
    groups: Sequence[str] = (),
    chroot: str = "",
    umask: int | None = None,
    rlimit: Mapping[str, tuple[int, int]] | None = None,
    no_new_privileges: bool = False,
    clear_env: bool = False,
) -> Isolation:
    """Names to numbers. Raises `ConfigError` for what is not there, or not permitted to whoever we are.

    `rlimit` gives soft and hard limits by name ("nofile"), -1 for none.
    """
    account = _account(user) if user else None
    uid = account.pw_uid if account else None
    gid = _gid(group, "group") if group else None
    others = tuple(_gid(name, "groups") for name in groups)
    if chroot and not os.path.isdir(chroot):
        raise ConfigError(f"chroot: there is no folder {chroot}")
    drops = os.geteuid() == 0 and (user or group or groups)
    if os.geteuid() != 0:
        _refuse_climbing(uid, gid, others, chroot)
    elif account and gid is None:
        gid = account.pw_gid
        if gid == _UNKNOWN:
            raise ConfigError(f"user: {user} is not in the user database, so its group has to be given (group)")
    if no_new_privileges and prctl is None:
        raise ConfigError("no-new-privileges: only Linux has this")
    return Isolation(
        uid=uid if drops else None,
        gid=gid if drops else None,
        groups=others if drops else None,
        user=account.pw_name if account else "",
        home=account.pw_dir if account else "",
        chroot=chroot,
        umask=umask,
        limits=tuple(_limit(name, *values) for name, values in (rlimit or {}).items()),
        no_new_privileges=prctl is not None and (no_new_privileges or account is not None),
        clear_env=clear_env,
    )


def refuse_root(isolation: Isolation, allow_root: bool) -> None:
    """Raises `ConfigError` if the application would run as root and nobody has said that it should."""
    if os.geteuid() == 0 and not isolation.uid and not allow_root:
        raise ConfigError(
            "user: the application would run as root; say who it is to be (--user NAME), "
            "or that it is to be root (--allow-root)"
        )


def owner_numbers(text: str) -> tuple[int, int] | None:
    """USER, USER:GROUP or :GROUP as (uid, gid), -1 for what stays; None for "". Raises `ConfigError`."""
    if not text:
        return None
    user, _, group = text.partition(":")
    return (
        _account(user, "socket-owner").pw_uid if user else -1,
        _gid(group, "socket-owner") if group else -1,
    )


def _account(user: str, setting: str = "user") -> pwd.struct_passwd:
    """By name, else by number. A number that nobody has is good too, with an unknown group."""
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(user)
    if not (user.isascii() and user.isdigit() and int(user) < 2**32 - 1):
        raise ConfigError(f"{setting}: there is no user {user!r} on this machine")
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(int(user))
    return pwd.struct_passwd(("", "", int(user), _UNKNOWN, "", "/", ""))


def _gid(group: str, setting: str) -> int:
    with contextlib.suppress(KeyError):
        return grp.getgrnam(group).gr_gid
    if not (group.isascii() and group.isdigit() and int(group) < 2**32 - 1):
        raise ConfigError(f"{setting}: there is no group {group!r} on this machine")
    return int(group)


def _refuse_climbing(uid: int | None, gid: int | None, groups: tuple[int, ...], chroot: str) -> None:
    """Without root, what is asked for must be what is."""
    if uid not in (None, os.geteuid()):
        raise ConfigError(f"user: only root can run the application as another user, and this is {_me()}")
    if gid not in (None, os.getegid()) or not set(groups) <= {*os.getgroups(), os.getegid()}:
        raise ConfigError(f"group: only root can run the application with other groups, and this is {_me()}")
    if chroot:
        raise ConfigError(f"chroot: only root can give the application another root folder, and this is {_me()}")


def _me() -> str:
    return _account(str(os.geteuid())).pw_name or f"user {os.geteuid()}"


def _limit(name: str, soft: int, hard: int) -> tuple[int, int, int]:
    if name not in _LIMITS:
        raise ConfigError(f"rlimit: this system has no limit {name!r}; it has {', '.join(sorted(_LIMITS))}")
    soft, hard = (resource.RLIM_INFINITY if value < 0 else value for value in (soft, hard))
    most = resource.getrlimit(_LIMITS[name])[1]
    if _is_more(soft, hard):
        raise ConfigError(f"rlimit: {name}'s soft limit of {_amount(soft)} is above its hard limit of {hard}")
    if os.geteuid() != 0 and _is_more(hard, most):
        raise ConfigError(f"rlimit: only root can raise {name} to {_amount(hard)}; it is at most {most} here")
    return _LIMITS[name], soft, hard


def _is_more(one: int, other: int) -> bool:
    if resource.RLIM_INFINITY in (one, other):
        return one != other and one == resource.RLIM_INFINITY
    return one > other


def _amount(limit: int) -> str:
    return "unlimited" if limit == resource.RLIM_INFINITY else str(limit)


# In the process that will be the application.


def isolate(isolation: Isolation) -> None:
    """Become what `isolation` says. Raises `ConfigError` naming what could not be done: then nothing may be run."""
    for aim, step in _steps(isolation):
        try:
            step()
        except (OSError, ValueError) as error:
            raise ConfigError(f"cannot {aim}: {getattr(error, 'strerror', None) or error}") from None
    verify_dropped(isolation)
    if isolation.uid and not isolation.chroot and not os.access(os.__file__, os.R_OK):
        log.warning(
            "user %s may not read this Python's library, %s: whatever is not imported yet will not be found",
            isolation.user or isolation.uid,
            os.path.dirname(os.__file__),
        )


def _steps(want: Isolation) -> Iterator[tuple[str, Callable[[], object]]]:
    """What is to be done, in words and in deed: each step needs the powers that a later one takes away."""
    if want.limits:
        yield "set the limits", partial(_set_limits, want.limits)
    if want.chroot:
        yield f"make {want.chroot} the root folder", partial(_change_root, want.chroot)
    if want.uid is not None:
        yield "leave the terminal", _leave_terminal
    if want.groups is not None:
        yield "change the groups", partial(os.setgroups, want.groups)
    if want.gid is not None:
        yield f"become group {want.gid}", partial(os.setgid, want.gid)
    if want.uid is not None:
        yield f"become user {want.uid}", partial(os.setuid, want.uid)
    if want.uid is not None and prctl is not None:
        yield "let the pool guard its workers' connections", partial(_be_open_to_the_parent, want.limits)
    if want.no_new_privileges:
        yield "give up new privileges", _give_up_new_privileges
    if want.umask is not None:
        yield "set the umask", partial(os.umask, want.umask)
    if want.clear_env:
        yield "clear the environment", _clear_environment
    if want.user or want.home:
        yield "set HOME and USER", partial(_set_account, want.user, want.home)


def _be_open_to_the_parent(limits: Iterable[tuple[int, int, int]]) -> None:
    """Linux closes a process that has changed its user to all others of that user: the pool could not guard its
    workers' requests. Memory that was root's is not to end in a core file, unless somebody has asked for those."""
    if all(number != resource.RLIMIT_CORE for number, _, _ in limits):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)


def verify_dropped(isolation: Isolation) -> None:
    """Look whether we are who we should be, and try to climb back. Raises `ConfigError` if that succeeds."""
    want = isolation
    if want.uid not in (None, os.getuid()) or want.uid not in (None, os.geteuid()):
        raise ConfigError(f"still user {os.geteuid()} instead of {want.uid}: the application is not run")
    if want.gid not in (None, os.getgid()) or want.gid not in (None, os.getegid()):
        raise ConfigError(f"still group {os.getegid()} instead of {want.gid}: the application is not run")
    # Some systems count the group itself among the groups.
    if want.groups is not None and not set(os.getgroups()) <= {*want.groups, os.getegid()}:
        raise ConfigError(f"still in the groups {os.getgroups()}: the application is not run")
    if want.no_new_privileges and not (prctl and prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1):
        raise ConfigError("new privileges are still possible: the application is not run")
    if want.uid:
        for what, climb in _CLIMBS.items():
            with contextlib.suppress(OSError):
                climb()
                raise ConfigError(f"the application could {what} again: it is not run")


_CLIMBS: Final[dict[str, Callable[[], object]]] = {
    "become root": partial(os.setuid, 0),
    "become root for a while": partial(os.seteuid, 0),
    "join root's group": lambda: _join_group(0),
    "join other groups": lambda: os.setgroups([0, *os.getgroups()]),
    "change its root folder": partial(os.chroot, "/"),
}


def _join_group(gid: int) -> None:
    if gid in (os.getgid(), os.getegid()):  # asked for
        raise PermissionError
    os.setgid(gid)


def _set_limits(limits: Iterable[tuple[int, int, int]]) -> None:
    for kind, soft, hard in limits:
        try:
            resource.setrlimit(kind, (soft, hard))
        except (OSError, ValueError) as error:
            name = next(name for name, one in _LIMITS.items() if one == kind)
            raise ValueError(f"{name} cannot be {_amount(soft)}:{_amount(hard)} here ({error})") from None


def _change_root(folder: str) -> None:
    """Nothing of the outside stays in hand: a folder that is open would be a way out."""
    for name in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):  # the one that this listing was
            if stat.S_ISDIR(os.fstat(int(name)).st_mode):
                os.close(int(name))
    os.chroot(folder)
    os.chdir("/")
    sys.path_importer_cache.clear()  # what the outside's folders held
    importlib.invalidate_caches()


def _leave_terminal() -> None:
    """Whoever shares root's terminal could type there (TIOCSTI)."""
    with contextlib.suppress(PermissionError):  # a process that leads others cannot leave; none of ours does
        os.setsid()


def _clear_environment() -> None:
    kept = {name: value for name, value in os.environ.items() if name in _KEPT or name.startswith("LC_")}
    os.environ.clear()
    os.environ.update(kept)


def _set_account(user: str, home: str) -> None:
    os.environ["HOME"] = home
    for name in ("USER", "LOGNAME"):
        if user:
            os.environ[name] = user
        else:
            os.environ.pop(name, None)


def _give_up_new_privileges() -> None:
    if prctl is None or prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


# In the master.


def give_logs(isolation: Isolation, paths: Iterable[str]) -> None:
    """Make these log files the application's user's, so that its processes can open them anew after a rotation.

    To be called again whenever the master has opened them anew, before it tells the others to.
    """
    for path in paths:
        if isolation.uid and path not in ("", "-"):
            with contextlib.suppress(OSError):
                _give(path, isolation.uid)
                _warn_of_folder(path, isolation.uid)


def _give(path: str, uid: int) -> None:
    """A plain file under its only name, and nothing else: who can write to its folder may have put another there."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        if stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_uid in (os.geteuid(), uid):
            os.fchown(fd, uid, -1)
    finally:
        os.close(fd)


def _warn_of_folder(path: str, uid: int) -> None:
    folder = os.stat(os.path.dirname(path))
    if folder.st_uid == uid or (folder.st_mode & stat.S_IWOTH and not folder.st_mode & stat.S_ISVTX):
        log.warning(
            "the application could put a link in place of %s, and root would follow it: use another folder", path
        )
