"""MoinMoin: pages and files with names that are not ASCII."""

from __future__ import annotations

import glob
import os
import re
import subprocess
from pathlib import Path

import pytest

from recipes.conftest import StartRecipe
from recipes.visitor import Visitor, hidden
from support import find_program

WORDS = "Straße, naïve, Ελλάδα, 日本語, 🐍"
FIELDS = {
    "comment": "geändert", "meta_form_acl": "None", "meta_form_name": "", "meta_form_summary": "", "meta_form_tags": ""
}  # fmt: skip
NO_FILE = ("", "application/octet-stream", b"")


def test_a_page_is_edited_a_file_uploaded_and_both_have_a_history(recipe: StartRecipe) -> None:
    moin = recipe("moinmoin")
    moin.run("MoinMoin 2")
    visitor = Visitor(moin.web["nginx"])
    edit = "/+modify/Stra%C3%9Fe?itemtype=default&contenttype=text/x-moin-wiki;charset=utf-8&template="
    assert 'value="Straße"' in visitor.get(edit).text
    for turn in ("erste", "zweite"):
        fields = {
            **FIELDS,
            "meta_form_name": "Straße",
            "comment": f"{turn} Änderung",
            "content_form_data_text": f"= Überschrift =\n{turn}: {WORDS}\n",
        }
        saved = visitor.post(edit, fields, {"content_form_data_file": NO_FILE})
        assert saved.status == 200 and f"{turn}: {WORDS}" in saved.text
    shown = visitor.get("/Stra%C3%9Fe")
    assert f"zweite: {WORDS}" in shown.text and "erste:" not in shown.text
    history = visitor.get("/+history/Stra%C3%9Fe").text
    assert "erste Änderung" in history and "zweite Änderung" in history

    content = os.urandom(300_000)
    upload = "/+modify/B%C3%A4ume?itemtype=default&contenttype=application/octet-stream&template="
    file = ("Bäume.bin", "application/octet-stream", content)
    visitor.get(upload)
    saved = visitor.post(upload, {**FIELDS, "meta_form_name": "Bäume"}, {"content_form_data_file": file})
    assert saved.status == 200
    back = visitor.get("/+get/B%C3%A4ume")
    assert (back.status, back.headers["Content-Length"]) == (200, "300000") and back.body == content
    assert "geändert" in visitor.get("/+history/B%C3%A4ume").text
    again = visitor.get("/+get/B%C3%A4ume", {"If-None-Match": back.headers["ETag"]})
    assert (again.status, again.body) == (304, b"")

    missing = visitor.get("/Gibt-es-nicht")
    assert missing.status == 404 and "Gibt-es-nicht" in missing.text
    assert "Traceback" not in moin.log()


def python2() -> Path:
    """A Python 2.7: on PATH, or one of pyenv's, whose `python2.7` on PATH may lead nowhere."""
    pyenv = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
    for python in (find_program("python2.7"), *glob.glob(f"{pyenv}/versions/2.7.*/bin/python2.7")):
        # With pip: the page installs the wiki.
        if python and subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode == 0:
            return Path(python)
    pytest.skip("there is no python2.7 here: MoinMoin 1.9 is left out")


def test_moin_1_9_a_program_of_python_2_is_edited_as_a_cgi_program(recipe: StartRecipe) -> None:
    python = python2()
    moin = recipe("moinmoin")
    moin.environ["PATH"] = f"{python.parent}:{moin.environ['PATH']}"
    moin.run("MoinMoin 1.9")
    visitor = Visitor(moin.web["nginx"])
    page = "/Stra%C3%9Fe"
    assert visitor.get(page).status == 404
    form = visitor.get(f"{page}?action=edit&editor=text").text
    fields = {
        "action": "edit",
        "rev": hidden(form, "rev"),
        "ticket": hidden(form, "ticket"),
        "editor": "text",
        "button_save": "Save Changes",
        "savetext": f"= Überschrift =\n{WORDS}\n" + "Zeile für Zeile.\n" * 2000,
        "comment": "geändert",
    }
    saved = visitor.post(page, fields)
    assert saved.status == 200
    shown = visitor.get(page)
    assert shown.status == 200 and shown.text.count("Zeile für Zeile.") == 2000
    plain = re.sub(r"<[^>]*>", "", shown.text)
    assert WORDS in plain
    assert "geändert" in visitor.get(f"{page}?action=info").text
    assert visitor.get(f"{page}?action=raw").text.startswith("= Überschrift =")
