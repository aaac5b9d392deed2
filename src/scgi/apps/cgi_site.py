"""Which program a path means: one program for all, or what lies in a folder, split by what exists on disk.

Nothing outside of the folder is ever found, by whatever dots, slashes or links. Imports `errors`.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

from scgi.errors import AppLoadError


class NoProgram(Exception):
    """There is none that may be run: `status` is what the client is told, the text says why."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True, slots=True)
class Program:
    """One that is to be run, and how the request's path is split around it."""

    path: str  # absolute
    script_name: str
    path_info: str

    @property
    def folder(self) -> str:
        return os.path.dirname(self.path)

    @property
    def name(self) -> str:
        return os.path.basename(self.path)


class Site:
    """The programs at one place: a file that may be run, or a folder. Raises `AppLoadError` if it is neither."""

    def __init__(self, place: str) -> None:
        self.place = os.path.abspath(place)
        try:
            mode = os.stat(self.place).st_mode
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise AppLoadError(f"cgi: expected a program or a folder of programs, found {place}: {why}") from None
        self.is_folder = stat.S_ISDIR(mode)
        self.root = os.path.realpath(self.place)
        if self.is_folder:
            if not os.access(self.place, os.R_OK | os.X_OK):
                raise AppLoadError(f"cgi: the folder {place} may not be entered by the user who runs the programs")
        elif why := _why_not(self.place, mode):
            raise AppLoadError(f"cgi: {place} {why}")

    def find(self, script_name: str, path_info: str) -> Program:
        """The program for a path of which `script_name` was split off already. Raises `NoProgram`.

        Both are Latin-1 text, as the variables of a request.
        """
        if "\0" in path_info:
            raise NoProgram(404, "a path with a NUL means no program")
        if not self.is_folder:
            return Program(self.place, script_name, path_info)
        path, at = self.place, 0
        while True:
            begin = at
            while path_info[begin : begin + 1] == "/":  # two slashes are as good as one
                begin += 1
            if begin == at or begin == len(path_info):
                raise NoProgram(404, f"{path} is a folder: name a program in it")
            at = path_info.find("/", begin)
            if at < 0:
                at = len(path_info)
            segment = path_info[begin:at]
            if segment in (".", ".."):
                raise NoProgram(404, f"a path with {segment!r} means no program")
            path = f"{path}/{os.fsdecode(segment.encode('latin-1'))}"
            try:
                mode = os.stat(path).st_mode
            except OSError:  # not there, not to be seen, or longer than a name can be
                raise NoProgram(404, f"there is no program {path}") from None
            if not stat.S_ISDIR(mode):
                break
        if not os.path.realpath(path).startswith(self.root + "/"):
            raise NoProgram(403, f"{path} leads out of {self.place}")
        if why := _why_not(path, mode):
            raise NoProgram(403, f"{path} {why}")
        return Program(path, script_name + path_info[:at], path_info[at:])


def _why_not(path: str, mode: int) -> str:
    """What keeps it from being run, as the end of a sentence; "" if nothing does."""
    if not stat.S_ISREG(mode):
        return "is not a regular file"
    if not os.access(path, os.X_OK):
        return "may not be run: it is not executable for the user who runs the programs (chmod +x)"
    return ""
