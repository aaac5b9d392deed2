"""Mercurial's hgweb: what its own client does over HTTP, through three web servers."""

from __future__ import annotations

import io
import os
import subprocess
import urllib.request
import zipfile
from pathlib import Path

import pytest

from recipes.conftest import StartRecipe
from recipes.recipe import Recipe

MB = 1 << 20
FORMS = ("As a WSGI application", "As a CGI program")


def hg(recipe: Recipe, *words: str, cwd: Path | None = None) -> str:
    command = [str(recipe.environment / "bin/hg"), "--config", "ui.username=Zoë", "--noninteractive", *words]  # type: ignore[operator]
    done = subprocess.run(
        command,
        cwd=cwd or recipe.folder,
        env={**recipe.environ, "HGENCODING": "utf-8", "HGRCPATH": ""},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, f"hg {' '.join(words)}\n{done.stdout}{done.stderr}\n{recipe.log()}"
    return done.stdout


def fill(recipe: Recipe, repository: Path) -> bytes:
    """A commit of 40 MB that no compression makes smaller."""
    content = os.urandom(40 * MB)
    (repository / "random").write_bytes(content)
    (repository / "Grüße.txt").write_text("Köln\n")
    hg(recipe, "commit", "-A", "-m", "Größe: 40 MB", cwd=repository)
    return content


@pytest.mark.parametrize("form", FORMS)
def test_clone_push_and_download(recipe: StartRecipe, form: str) -> None:
    mercurial = recipe("mercurial")
    mercurial.run()
    content = fill(mercurial, mercurial.folder / "repos/work")
    mercurial.run(form)
    mercurial.run("Behind a web server")
    assert set(mercurial.web) == {"nginx", "mod_scgi", "lighttpd"}
    for name, web in mercurial.web.items():
        there = f"{web}/work"
        for options in ([], ["--stream"]):
            copy = mercurial.folder / f"{name}{'-'.join(options)}"
            said = hg(mercurial, "clone", *options, there, str(copy))
            assert ("stream" in said) == bool(options), said
            assert (copy / "random").read_bytes() == content
            assert (copy / "Grüße.txt").read_text() == "Köln\n"
            assert "checked 0" not in hg(mercurial, "verify", cwd=copy)

        (copy / f"pushed-{name}").write_bytes(os.urandom(5 * MB))
        hg(mercurial, "commit", "-A", "-m", f"Über {name}", cwd=copy)
        assert "added 1 changesets" in hg(mercurial, "push", there, cwd=copy)
        tip = hg(mercurial, "log", "-r", "tip", "-T", "{node} {desc}", cwd=mercurial.folder / "repos/work")
        assert tip.endswith(f" Über {name}")
        assert hg(mercurial, "identify", "--debug", "--id", there).splitlines().count(tip.split()[0]) == 1

        with urllib.request.urlopen(f"{there}/archive/tip.zip", timeout=60) as answer:
            archive = zipfile.ZipFile(io.BytesIO(answer.read()))
        assert archive.testzip() is None
        names = {Path(member).name: member for member in archive.namelist()}
        assert archive.read(names["random"]) == content
        assert archive.read(names[f"pushed-{name}"]) == (copy / f"pushed-{name}").read_bytes()

        with urllib.request.urlopen(f"{there}/log", timeout=60) as answer:
            page = answer.read().decode()
        assert "Größe: 40 MB" in page and f"Über {name}" in page
    hg(mercurial, "verify", cwd=mercurial.folder / "repos/work")
