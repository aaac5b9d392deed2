"""Git's own client against git-http-backend, and gitweb: CGI programs in C and in Perl."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from recipes.conftest import StartRecipe
from recipes.recipe import Recipe
from recipes.visitor import Visitor
from support import require_program

MB = 1 << 20
NOBODY_S = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null", "GIT_TERMINAL_PROMPT": "0"}


def git(recipe: Recipe, *words: str, cwd: Path) -> str:
    who = ["-c", "user.name=Zoë", "-c", "user.email=zoe@example.org"]
    done = subprocess.run(
        ["git", *who, *words],
        cwd=cwd,
        env={**recipe.environ, **NOBODY_S},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, f"git {' '.join(words)}\n{done.stdout}{done.stderr}\n{recipe.log()}"
    return done.stdout + done.stderr


def commit(recipe: Recipe, copy: Path, name: str, content: bytes, message: str) -> None:
    (copy / name).write_bytes(content)
    git(recipe, "add", "--all", cwd=copy)
    git(recipe, "commit", "--quiet", "-m", message, cwd=copy)


def test_push_clone_and_shallow_clone(recipe: StartRecipe) -> None:
    require_program("git")
    here = recipe("git")
    here.run()
    here.run("To clone and push")
    copy, there = here.folder / "copy", f"{here.web['nginx']}/work.git"
    git(here, "checkout", "-q", "-B", "main", cwd=copy)
    content = os.urandom(40 * MB)
    commit(here, copy, "random", content, "Größe: 40 MB")
    git(here, "push", "--quiet", str(here.machine / "srv/git/work.git"), "main", cwd=copy)

    clone = here.folder / "clone"
    git(here, "clone", "--quiet", there, str(clone), cwd=here.folder)
    assert (clone / "random").read_bytes() == content

    # More than http.postBuffer, a megabyte, goes chunked, and compressed where that pays.
    more = os.urandom(25 * MB)
    commit(here, clone, "Bäume", more, "25 MB, in Stücken")
    git(here, "push", "--quiet", "origin", "main", cwd=clone)
    bare = here.machine / "srv/git/work.git"
    assert git(here, "log", "--format=%s", "main", cwd=bare).splitlines() == ["25 MB, in Stücken", "Größe: 40 MB"]
    git(here, "fsck", "--strict", cwd=bare)

    shallow = here.folder / "shallow"
    git(here, "clone", "--quiet", "--depth=1", there, str(shallow), cwd=here.folder)
    assert git(here, "rev-list", "--count", "HEAD", cwd=shallow) == "1\n"
    assert (shallow / "Bäume").read_bytes() == more

    missing = Visitor(here.web["nginx"]).get("/none.git/info/refs?service=git-upload-pack")
    assert missing.status == 404


def test_gitweb_shows_the_repositories(recipe: StartRecipe) -> None:
    if not Path("/usr/share/gitweb/gitweb.cgi").exists():
        if os.environ.get("CI") == "true":
            pytest.fail("gitweb is not installed; with CI=true nothing is left out")
        pytest.skip("gitweb is not installed (scripts/system-packages apps installs it)")
    here = recipe("git")
    here.run()
    bare = here.machine / "srv/git/work.git"
    copy = here.folder / "first"
    git(here, "clone", "--quiet", str(bare), str(copy), cwd=here.folder)
    git(here, "checkout", "-q", "-B", "main", cwd=copy)
    commit(here, copy, "Grüße.txt", "Schöne Grüße\n".encode(), "Grüße aus Köln")
    git(here, "push", "--quiet", "origin", "main", cwd=copy)
    here.run("To look at")
    visitor = Visitor(here.web["nginx"])
    assert "work.git" in visitor.get("/").text
    summary = visitor.get("/?p=work.git;a=summary")
    assert summary.status == 200 and "Grüße aus Köln" in summary.text and "Zoë" in summary.text
    raw = visitor.get("/?p=work.git;a=blob_plain;f=Gr%C3%BC%C3%9Fe.txt;hb=main")
    assert raw.text == "Schöne Grüße\n"
    style = visitor.get("/static/gitweb.css")
    assert style.status == 200 and style.body == Path("/usr/share/gitweb/static/gitweb.css").read_bytes()
    missing = visitor.get("/?p=none.git;a=summary")
    assert missing.status == 404 and "No such project" in missing.text
