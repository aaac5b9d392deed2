"""CGI scripts in three languages: what each of them gets, and what becomes of what it says."""

from __future__ import annotations

import hashlib
import http.client
import os
import subprocess
from collections.abc import Iterator

import pytest

from recipes.conftest import StartRecipe
from recipes.recipe import Recipe
from recipes.visitor import Visitor
from support import require_program, wait_until


@pytest.fixture
def scripts(recipe: StartRecipe) -> Iterator[Recipe]:
    for name in ("php-cgi", "perl", "curl"):
        require_program(name)
    if subprocess.run(["perl", "-MCGI", "-e", "1"], capture_output=True).returncode:
        if os.environ.get("CI") == "true":
            pytest.fail("Perl's CGI is not installed (libcgi-pm-perl); with CI=true nothing is left out")
        pytest.skip("Perl's CGI is not installed (scripts/system-packages apps installs it)")
    scripts = recipe("php-and-perl")
    scripts.run()
    yield scripts


@pytest.fixture
def visitor(scripts: Recipe) -> Visitor:
    return Visitor(scripts.web["nginx"])


def test_a_shell_script_finds_its_arguments_its_path_and_its_folder(scripts: Recipe, visitor: Visitor) -> None:
    said = visitor.get("/place.sh/a%20b/%C3%BC?one+t%77o+%26three").text.splitlines()
    assert said[:3] == ["argument: one", "argument: two", "argument: &three"]
    assert said[3] == "PATH_INFO: /a b/ü"
    assert said[4].startswith("PATH_TRANSLATED: /") and said[4].endswith("/a b/ü")
    assert said[5:] == ["SCRIPT_NAME: /place.sh", f"folder: {scripts.folder}/cgi-bin"]
    # A query with a = in it is a form's, and no argument.
    said = visitor.get("/place.sh?a=b+c").text.splitlines()
    assert said[:2] == ["PATH_INFO: ", "PATH_TRANSLATED: "]


@pytest.mark.parametrize("script", ["/guests.pl", "/guests.php"])
def test_two_cookies_come_back_and_an_upload_arrives(script: str, visitor: Visitor) -> None:
    first = visitor.get(script)
    assert first.text == "Hello nobody, your file has 0 bytes" + (", none\n" if "php" in script else "\n")
    assert [cookie.partition(";")[0] for cookie in first.headers.get_all("Set-Cookie", [])] == ["first=1", "second=2"]
    assert visitor.get(script).text.endswith("You come with first and second\n")
    content = os.urandom(1_200_000)
    file = ("Übersicht.bin", "application/octet-stream", content)
    sent = visitor.post(script, {"name": "Zoë"}, {"file": file})
    digest = f", {hashlib.md5(content).hexdigest()}" if "php" in script else ""
    assert sent.text.startswith(f"Hello Zoë, your file has 1200000 bytes{digest}\n")
    assert visitor.post(script, {"name": "Ä & ö"}).text.startswith("Hello Ä & ö, ")
    head = visitor.get(script, method="HEAD")
    assert (head.status, head.body) == (200, b"")


@pytest.mark.parametrize("script", ["/guests.pl", "/guests.php"])
def test_an_upload_in_chunks_arrives_whole(script: str, visitor: Visitor) -> None:
    """nginx gives it a length, and still says that it is chunked."""
    form = b"name=" + b"a" * 300_000
    connection = http.client.HTTPConnection(visitor.site.removeprefix("http://"), timeout=30)
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Transfer-Encoding": "chunked"}
    pieces = [form[start : start + 10_000] for start in range(0, len(form), 10_000)]
    connection.request("POST", script, iter(pieces), headers, encode_chunked=True)
    answer = connection.getresponse()
    assert answer.status == 200 and answer.read().startswith(b"Hello " + b"a" * 300_000 + b", ")
    connection.close()


def test_a_path_is_followed_by_the_server_and_an_address_by_the_browser(visitor: Visitor) -> None:
    said = visitor.get("/moved.sh")
    assert said.status == 200 and said.url.endswith("/moved.sh")
    assert said.text.splitlines()[:2] == ["argument: here", "PATH_INFO: /moved"]
    connection = http.client.HTTPConnection(visitor.site.removeprefix("http://"), timeout=30)
    connection.request("GET", "/moved.sh?away")
    answer = connection.getresponse()
    assert (answer.status, answer.headers["Location"]) == (302, "http://www.example.org/new")
    connection.close()


def test_what_a_script_complains_of_is_in_the_log_with_its_status(scripts: Recipe, visitor: Visitor) -> None:
    failed = visitor.get("/fails.sh")
    assert failed.status in (500, 502)
    wait_until(lambda: "no shop today: Ärger" in scripts.log(), 10, "its complaint in the log")
    wait_until(lambda: "status 3" in scripts.log(), 10, "its status in the log")
    assert "fails.sh" in scripts.log()


def test_what_is_not_there_is_404(visitor: Visitor) -> None:
    assert visitor.get("/none.sh").status == 404
    assert visitor.get("/../requirements.txt").status in (400, 404)
