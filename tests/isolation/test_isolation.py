"""Privileges are looked up beforehand, dropped in a process of its own, and gone for good."""

from __future__ import annotations

import fcntl
import grp
import importlib
import os
import pty
import pwd
import resource
import shutil
import stat
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scgi.errors import ConfigError
from scgi.supervisor.isolation import (
    Isolation,
    give_logs,
    isolate,
    owner_numbers,
    refuse_root,
    resolve,
    verify_dropped,
)  # fmt: skip
from support.identity import IS_ROOT, NOBODY, in_child, needs_root, status_of

NOBODYS_GROUP = grp.getgrgid(NOBODY.pw_gid).gr_name
NO_ONES_NUMBER = "54321"
CAP_SYS_RESOURCE = 24
IDENTITY = ("Uid", "Gid", "Groups", "NoNewPrivs", "CapPrm", "CapEff", "CapAmb")


def sentence(**asked: Any) -> str:
    """Why `resolve` refuses."""
    with pytest.raises(ConfigError) as refused:
        resolve(**asked)
    return str(refused.value)


def refused_in_child(**asked: Any) -> str:
    return str(in_child(lambda: sentence(**asked), as_nobody=True))


@pytest.fixture
def plain_folder(short_tmp: Path) -> Path:
    """One that everybody may enter."""
    short_tmp.chmod(0o755)
    return short_tmp


# What is asked for


def test_nothing_asked_for_is_nothing_done() -> None:
    assert resolve() == Isolation()
    before = status_of("self")
    after = in_child(lambda: [isolate(resolve()), status_of("self")][1])
    assert {name: after[name] for name in IDENTITY} == {name: before[name] for name in IDENTITY}


@needs_root
def test_names_and_numbers_mean_the_same() -> None:
    by_name = resolve(user="nobody", groups=["daemon", "bin"])
    assert (by_name.uid, by_name.gid) == (NOBODY.pw_uid, NOBODY.pw_gid)
    assert by_name.groups == (grp.getgrnam("daemon").gr_gid, grp.getgrnam("bin").gr_gid)
    by_number = resolve(user=str(NOBODY.pw_uid), groups=[str(group) for group in by_name.groups])
    assert by_number == by_name
    assert resolve(user="nobody", group="daemon").gid == grp.getgrnam("daemon").gr_gid


@needs_root
def test_a_number_that_nobody_has_will_do_if_a_group_comes_with_it() -> None:
    assert "its group has to be given" in sentence(user=NO_ONES_NUMBER)
    found = resolve(user=NO_ONES_NUMBER, group=NO_ONES_NUMBER)
    assert (found.uid, found.gid, found.groups, found.home) == (54321, 54321, (), "/")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"user": "nosuch"}, "user: there is no user 'nosuch'"),
        ({"group": "nosuch"}, "group: there is no group 'nosuch'"),
        ({"groups": ["nosuch"]}, "groups: there is no group 'nosuch'"),
        ({"user": "4294967295"}, "there is no user"),  # -1, which means "leave as it is"
        ({"user": "-1"}, "there is no user"),
        ({"user": "٣"}, "there is no user"),
        ({"chroot": "/no/such"}, "chroot: there is no folder /no/such"),
        ({"rlimit": {"nofiles": (1, 1)}}, "rlimit: this system has no limit 'nofiles'; it has as, core"),
        ({"rlimit": {"nofile": (6, 5)}}, "nofile's soft limit of 6 is above its hard limit of 5"),
        ({"rlimit": {"nofile": (-1, 5)}}, "nofile's soft limit of unlimited is above"),
    ],
)
def test_what_is_not_there_is_refused_with_a_sentence(asked: dict[str, Any], said: str) -> None:
    assert said in sentence(**asked)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"user": "root"}, "user: only root can run the application as another user, and this is"),
        ({"user": "daemon", "group": "daemon"}, "user: only root can"),
        ({"group": "daemon"}, "group: only root can"),
        ({"groups": ["daemon"]}, "group: only root can"),
        ({"chroot": "/tmp"}, "chroot: only root can"),
    ],
)
def test_an_ordinary_user_cannot_become_another_and_is_told_so_beforehand(asked: dict[str, Any], said: str) -> None:
    assert said in refused_in_child(**asked)


def test_an_ordinary_user_may_name_himself() -> None:
    def stay() -> list[Any]:
        me = pwd.getpwuid(os.geteuid())
        found = resolve(user=me.pw_name, group=str(os.getegid()))
        isolate(found)
        return [found.uid, found.gid, found.groups, status_of("self")["NoNewPrivs"], os.environ["USER"] == me.pw_name]

    assert in_child(stay, as_nobody=True) == [None, None, None, "1", True]


@needs_root
def test_an_ordinary_user_who_has_another_group_than_his_first_may_name_himself_too() -> None:
    """Under systemd with User=nobody and Group=daemon, say."""

    def stay() -> Any:
        os.setgroups([])
        os.setgid(1)
        os.setuid(NOBODY.pw_uid)
        isolate(resolve(user="nobody"))
        return [os.getgid(), sentence(user="nobody", group=NOBODYS_GROUP)]

    assert in_child(stay)[0] == 1
    assert "group: only root can" in in_child(stay)[1]


def test_an_ordinary_user_may_lower_his_limits_and_not_raise_them() -> None:
    def lower() -> Any:
        isolate(resolve(rlimit={"nofile": (50, 60), "core": (0, 0)}, umask=0o027))
        more = sentence(rlimit={"nofile": (50, 61)})
        return [resource.getrlimit(resource.RLIMIT_NOFILE), resource.getrlimit(resource.RLIMIT_CORE), os.umask(0), more]

    files, core, umask, more = in_child(lower, as_nobody=True)
    assert (files, core, umask) == ([50, 60], [0, 0], 0o027)
    assert more == "rlimit: only root can raise nofile to 61; it is at most 60 here"


def test_root_is_refused_unless_it_is_meant() -> None:
    nobody = Isolation(uid=65534, gid=65534)
    if not IS_ROOT:
        refuse_root(Isolation(), allow_root=False)
        return
    refuse_root(nobody, allow_root=False)
    refuse_root(Isolation(), allow_root=True)
    for root in (Isolation(), resolve(user="root"), resolve(user="0")):
        with pytest.raises(ConfigError, match=r"--user.*--allow-root"):
            refuse_root(root, allow_root=False)


# What is done


@needs_root
@pytest.mark.parametrize("groups", [(), ("daemon", "bin")])
def test_only_the_users_own_uid_gid_and_groups_remain(groups: tuple[str, ...]) -> None:
    found = in_child(lambda: [isolate(resolve(user="nobody", groups=groups)), status_of("self")][1])
    uid, gid = str(NOBODY.pw_uid), str(NOBODY.pw_gid)
    assert found["Uid"].split() == [uid] * 4  # real, effective, saved, file system
    assert found["Gid"].split() == [gid] * 4
    assert found["Groups"].split() == sorted((str(grp.getgrnam(name).gr_gid) for name in groups), key=int)
    assert found["NoNewPrivs"] == "1"
    assert [int(found[name], 16) for name in ("CapPrm", "CapEff", "CapAmb")] == [0, 0, 0]


@needs_root
def test_there_is_no_way_back() -> None:
    def climb() -> list[str]:
        isolate(resolve(user="nobody"))
        ways = {
            "setuid": lambda: os.setuid(0),
            "seteuid": lambda: os.seteuid(0),
            "setresuid": lambda: os.setresuid(-1, 0, -1),
            "setgid": lambda: os.setgid(0),
            "setgroups": lambda: os.setgroups([0]),
            "chroot": lambda: os.chroot("/"),
            "shadow": lambda: open("/etc/shadow").close(),
            "limit": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (1 << 20, 1 << 20)),
        }
        found = []
        for name, way in ways.items():
            try:
                way()
                found.append(name)
            except (OSError, ValueError):
                pass
        return found

    limited = {"nofile": (100, 100)}
    assert in_child(lambda: [isolate(resolve(rlimit=limited)), climb()][1]) == []


@needs_root
def test_the_terminal_of_root_is_out_of_reach() -> None:
    """With it one can type for its owner."""

    def has_terminal() -> bool:
        try:
            os.close(os.open("/dev/tty", os.O_RDWR))
        except OSError:
            return False
        return True

    def on_a_terminal() -> list[bool]:
        os.setsid()
        _main, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
        own = in_child(has_terminal)
        return [own, in_child(lambda: [isolate(resolve(user="nobody")), has_terminal()][1])]

    assert in_child(on_a_terminal) == [True, False]


@needs_root
@pytest.mark.parametrize(
    ("half_done", "said"),
    [
        (lambda: None, "still user 0"),
        (lambda: os.seteuid(NOBODY.pw_uid), "still user"),
        (lambda: (os.setgroups([]), os.setuid(NOBODY.pw_uid)), "still group 0"),
        (lambda: (os.setgid(NOBODY.pw_gid), os.setgroups([4]), os.setuid(NOBODY.pw_uid)), r"still in the groups \[4\]"),
        (
            lambda: (
                os.setgroups([]),
                os.setgid(NOBODY.pw_gid),
                os.setresuid(NOBODY.pw_uid, NOBODY.pw_uid, 0),
            ),
            "could become root again",
        ),
        (
            lambda: (
                os.setgroups([]),
                os.setresgid(NOBODY.pw_gid, NOBODY.pw_gid, 0),
                os.setuid(NOBODY.pw_uid),
            ),
            "could join root's group again",
        ),
    ],
)
def test_a_drop_that_is_not_one_is_found_out(half_done: Any, said: str) -> None:
    def check() -> str:
        half_done()
        with pytest.raises(ConfigError, match=said) as refused:
            verify_dropped(Isolation(uid=NOBODY.pw_uid, gid=NOBODY.pw_gid, groups=()))
        return str(refused.value)

    assert "not run" in in_child(check)


@needs_root
def test_new_privileges_that_are_still_possible_are_found_out() -> None:
    with pytest.raises(ConfigError, match="new privileges are still possible"):
        verify_dropped(Isolation(no_new_privileges=True))


@needs_root
def test_a_setuid_program_gives_the_application_nothing(plain_folder: Path) -> None:
    shutil.copy("/usr/bin/id", plain_folder / "id")
    (plain_folder / "id").chmod(0o4755)

    def who(isolation: Isolation) -> str:
        isolate(isolation)
        return subprocess.check_output([plain_folder / "id", "-u"], text=True).strip()

    assert in_child(lambda: who(resolve(user="nobody"))) == str(NOBODY.pw_uid)
    bare = Isolation(uid=NOBODY.pw_uid, gid=NOBODY.pw_gid, groups=())
    if not os.statvfs(plain_folder).f_flag & os.ST_NOSUID:
        assert in_child(lambda: who(bare)) == "0"  # so it was no_new_privileges that helped


@needs_root
def test_limits_are_raised_before_the_right_to_is_gone() -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if not int(status_of("self")["CapEff"], 16) & 1 << CAP_SYS_RESOURCE:
        pytest.skip("the kernel refuses root higher limits here (CAP_SYS_RESOURCE)")

    def raised() -> Any:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        isolate(resolve(user="nobody", rlimit={"nofile": (most - 1, most), "core": (-1, -1)}))
        return [resource.getrlimit(resource.RLIMIT_NOFILE), resource.getrlimit(resource.RLIMIT_CORE)]

    assert in_child(raised) == [[most - 1, most], [resource.RLIM_INFINITY] * 2]


def test_a_limit_that_the_system_refuses_is_named() -> None:
    if not IS_ROOT:
        pytest.skip("resolve() has refused it already")

    def beyond() -> str:
        with pytest.raises(ConfigError) as refused:
            isolate(resolve(rlimit={"nofile": (-1, -1)}))
        return str(refused.value)

    assert in_child(beyond).startswith("cannot set the limits: nofile cannot be unlimited:unlimited here")


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in list(os.environ):
        monkeypatch.delenv(name)
    for name in ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "SECRET", "SCGI_LISTEN", "LD_PRELOAD_"):
        monkeypatch.setenv(name, f"my {name}")
    yield


def test_a_cleared_environment_keeps_what_programs_need(environment: None) -> None:
    def clear() -> Any:
        isolate(resolve(clear_env=True))
        return [dict(os.environ), subprocess.check_output(["/usr/bin/env", "-0"], text=True).split("\0")]

    names = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ")
    ours, of_programs = in_child(clear)
    assert ours == {name: f"my {name}" for name in names}
    assert {entry for entry in of_programs if "=my " in entry} == {f"{name}=my {name}" for name in names}


@needs_root
def test_home_and_name_in_the_environment_are_the_users(environment: None) -> None:
    def names(user: str, group: str) -> Any:
        isolate(resolve(user=user, group=group))
        return [os.environ.get(name) for name in ("HOME", "USER", "LOGNAME", "SECRET")]

    assert in_child(lambda: names("nobody", "")) == [NOBODY.pw_dir, "nobody", "nobody", "my SECRET"]
    assert in_child(lambda: names(NO_ONES_NUMBER, "1")) == ["/", None, None, "my SECRET"]


@needs_root
def test_another_root_folder_is_all_there_is(plain_folder: Path) -> None:
    jail = plain_folder / "jail"
    jail.mkdir()
    (jail / "inside").write_text("in here")
    way_out = os.open(plain_folder, os.O_RDONLY)  # as whoever starts the server may have left it open

    def look() -> Any:
        isolate(resolve(user="nobody", chroot=str(jail)))
        found = [os.getcwd(), os.listdir("/"), os.listdir("/.."), open("/inside").read()]
        with pytest.raises(OSError):
            os.fchdir(way_out)
        return found

    try:
        assert in_child(look) == ["/", ["inside"], ["inside"], "in here"]
    finally:
        os.close(way_out)


@needs_root
def test_modules_are_looked_for_inside_the_new_root(plain_folder: Path) -> None:
    """Even if the import system has looked outside before."""
    for root, where in ((plain_folder, "outside"), (plain_folder / "jail", "inside")):
        (root / "lib").mkdir(parents=True)
        (root / "lib/only_outside.py" if where == "outside" else root / "lib/found.py").write_text(f"where = {where!r}")

    def load() -> Any:
        sys.path.insert(0, f"{plain_folder}/lib")
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("not_there")  # fills the cache
        sys.path[0] = "/lib"
        isolate(resolve(user="nobody", chroot=f"{plain_folder}/jail"))
        found = importlib.import_module("found")
        sys.path.insert(0, f"{plain_folder}/lib")
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("only_outside")
        return found.where

    assert in_child(load) == "inside"


# Logs and sockets


@pytest.fixture
def logs(plain_folder: Path) -> Path:
    (plain_folder / "app.log").write_text("a line\n")
    (plain_folder / "app.log").chmod(0o640)
    return plain_folder


@needs_root
def test_a_log_can_be_opened_anew_by_the_applications_user(logs: Path) -> None:
    isolation = resolve(user="nobody")
    log = logs / "app.log"

    def write() -> bool:
        isolate(isolation)
        try:
            with open(log, "a") as file:
                return file.write("another\n") > 0
        except PermissionError:
            return False

    assert not in_child(write)
    give_logs(isolation, (str(log), "", "-", str(logs / "missing")))
    assert in_child(write)
    assert (log.stat().st_uid, log.stat().st_gid, stat.S_IMODE(log.stat().st_mode)) == (NOBODY.pw_uid, 0, 0o640)


@needs_root
def test_nothing_else_is_given_away_in_the_logs_name(logs: Path) -> None:
    precious = logs / "precious"
    precious.write_text("root's")
    links = [logs / "symbolic.log", logs / "hard.log", logs / "fifo.log", logs / "daemon.log"]
    links[0].symlink_to(precious)
    links[1].hardlink_to(precious)
    os.mkfifo(links[2])
    links[3].write_text("")
    os.chown(links[3], 1, 1)
    give_logs(resolve(user="nobody"), map(str, links))
    assert [entry.stat().st_uid for entry in (precious, *links[1:])] == [0, 0, 0, 1]


@needs_root
@pytest.mark.parametrize(("owner", "mode", "warned"), [(65534, 0o755, 1), (0, 0o777, 1), (0, 0o1777, 0), (0, 0o755, 0)])
def test_a_folder_where_the_log_could_be_exchanged_is_warned_of(
    logs: Path, owner: int, mode: int, warned: int, caplog: pytest.LogCaptureFixture
) -> None:
    os.chown(logs, owner, 0)
    logs.chmod(mode)
    give_logs(Isolation(uid=65534), [str(logs / "app.log")])
    assert sum("could put a link in place of" in line for line in caplog.messages) == warned


def test_owners_of_sockets_are_names_or_numbers() -> None:
    nobody, group = NOBODY.pw_uid, NOBODY.pw_gid
    assert owner_numbers("") is None
    assert owner_numbers("nobody") == (nobody, -1)
    assert owner_numbers(f"nobody:{NOBODYS_GROUP}") == (nobody, group)
    assert owner_numbers(f":{NOBODYS_GROUP}") == (-1, group)
    assert owner_numbers(f"{NO_ONES_NUMBER}:{group}") == (54321, group)
    for unknown in ("nosuch", "nobody:nosuch", ":nosuch"):
        with pytest.raises(ConfigError, match=r"socket-owner: there is no (user|group) 'nosuch'"):
            owner_numbers(unknown)
