"""Django's admin behind nginx: logging in with its CSRF token, creating a user, listing, static files, streaming."""

from __future__ import annotations

import shutil

from recipes.conftest import StartRecipe
from recipes.visitor import Visitor, hidden


def test_the_admin_works(recipe: StartRecipe) -> None:
    django = recipe("django")
    django.run()
    django.run("Serve it")
    there = django.machine / "srv/shop"  # where the page has the project
    there.mkdir(parents=True, exist_ok=True)
    shutil.copytree(django.folder / "static", there / "static")
    for folder in (django.machine, *django.machine.rglob("*")):
        folder.chmod(0o755)
    django.run("Behind nginx")
    visitor = Visitor(django.web["nginx"])

    login = visitor.get("/admin/")
    assert login.url.endswith("/admin/login/?next=/admin/")
    fields = {"username": "anna", "password": "correct-horse", "next": "/admin/"}
    assert visitor.post("/admin/login/", fields).status == 403  # without the token
    token = {"csrfmiddlewaretoken": hidden(login.text, "csrfmiddlewaretoken")}
    inside = visitor.post("/admin/login/?next=/admin/", fields | token)
    assert inside.status == 200 and "Site administration" in inside.text

    form = visitor.get("/admin/auth/user/add/")
    token = {"csrfmiddlewaretoken": hidden(form.text, "csrfmiddlewaretoken")}
    secret = {"password1": "x7-Grüße-9", "password2": "x7-Grüße-9", "usable_password": "true"}
    made = visitor.post("/admin/auth/user/add/", {"username": "zoë", "_save": "Save"} | secret | token)
    assert made.status == 200 and "was added successfully" in made.text
    listed = visitor.get("/admin/auth/user/?q=zo%C3%AB")
    assert "1 user" in listed.text and "zoë" in listed.text

    css = visitor.get("/static/admin/css/base.css")
    assert css.status == 200
    assert css.body == (django.folder / "static/admin/css/base.css").read_bytes()
    assert visitor.get("/numbers").text.split() == [str(number) for number in range(10_000)]
    missing = visitor.get("/nothing")
    assert missing.status == 404 and "Not Found" in missing.text
    assert "Traceback" not in django.log()
