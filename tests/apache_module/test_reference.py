"""The pages about directives and messages say what the sources say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.apache_module import SOURCE, refusal

REFERENCE = Path(__file__).parents[2] / "docs/reference"
SOURCES = "\n".join(file.read_text() for file in sorted(SOURCE.glob("*.[ch]")))
DIRECTIVES = (REFERENCE / "apache-directives.md").read_text()
MESSAGES = (REFERENCE / "apache-messages.md").read_text()
CONTEXTS = {
    "RSRC_CONF": "server, `<VirtualHost>`",
    "ACCESS_CONF": "sections",
    "RSRC_CONF | ACCESS_CONF": "server, `<VirtualHost>`, sections",
}


def sections(page: str, pattern: str) -> dict[str, str]:
    """The text of each section whose heading begins so."""
    return {
        heading.split()[0].rstrip(":"): text
        for heading, text in re.findall(r"^## ([^\n]*)\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
        if re.match(pattern, heading)
    }


def table(text: str) -> dict[str, str]:
    return dict(re.findall(r"^\| (Syntax|Default|Contexts) +\| (.*?) +\|$", text, re.MULTILINE))


def test_there_is_a_section_for_each_directive_and_it_knows_where_it_may_stand() -> None:
    of_the_page = {name: table(text)["Contexts"] for name, text in sections(DIRECTIVES, "SCGI").items()}
    found = re.findall(r'AP_INIT_\w+\(\s*"(\w+)",\s*\w+,\s*NULL,\s*([A-Z_ |]+?),', SOURCES)
    assert of_the_page == {name: CONTEXTS[where] for name, where in found}


def test_the_defaults_are_those_of_the_sources() -> None:
    of_the_page = {name: table(text)["Default"] for name, text in sections(DIRECTIVES, "SCGI").items()}
    for name, macro in (("SCGIServerTimeout", "TIMEOUT"), ("SCGIConnectTimeout", "CONNECT_TIMEOUT")):
        seconds = re.search(rf"#define SCGI_DEFAULT_{macro} apr_time_from_sec\((\d+)\)", SOURCES)
        assert seconds and of_the_page[name] == f"`{name} {seconds[1]}`"
    address = re.search(r'#define SCGI_DEFAULT_ADDRESS "(.*)"', SOURCES)
    assert address and of_the_page["SCGIServer"] == f"`SCGIServer {address[1]}`"
    assert "#define SCGI_REST apr_time_from_sec(2)" in SOURCES  # "for two seconds", say the pages


@pytest.mark.parametrize("name", sections(DIRECTIVES, "SCGI"))
def test_the_example_of_a_directive_is_accepted(name: str) -> None:
    text = sections(DIRECTIVES, "SCGI")[name]
    [example] = re.findall(r"^```apache\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert name in example and f"`{name} " in table(text)["Syntax"]
    assert refusal(example) == ""


def test_there_is_a_section_for_each_code_and_in_their_order() -> None:
    of_the_page = list(sections(MESSAGES, "SCGI"))
    assert of_the_page == sorted(set(re.findall(r'"(SCGI\d\d): ', SOURCES)))


@pytest.mark.parametrize("code", sections(MESSAGES, "SCGI"))
def test_a_section_about_a_code_says_when_and_what_to_do(code: str) -> None:
    text = sections(MESSAGES, "SCGI")[code]
    assert re.search(r"^\*\*When\*\*: \S", text, re.MULTILINE) and re.search(r"^\*\*What to do\*\*: \S", text, re.M)
