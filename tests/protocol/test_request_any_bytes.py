"""Any bytes at all are a request, the beginning of one, or a protocol error: the same whole or split."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from captures_index import CAPTURES
from protocol.malformed import GOOD, netstring
from protocol.ways_in import TAIL, Verdict, at_once, in_pieces
from scgi.errors import MisuseError
from scgi.protocol.request import Limits, build_head, parse_head

SHORT_CAPTURES = [capture.data for capture in CAPTURES if capture.size < 1500]
TIGHT = Limits(head=2000, variables=30, body=1000)


@st.composite
def mutated_captures(draw: st.DrawFn) -> bytes:
    """A real request with a few bytes changed, lost or added, or a piece of another one in its middle."""
    data = bytearray(draw(st.sampled_from(SHORT_CAPTURES)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["change", "lose", "add", "graft", "repeat"])):
            case "change":
                data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case "lose":
                del data[at : at + draw(st.integers(1, 20))]
            case "add":
                data[at:at] = draw(st.sampled_from([b"\0", b":", b",", b"\n", b"\r\n", b"0", b"+", b" ", b"\xb2"]))
            case "graft":
                other = draw(st.sampled_from(SHORT_CAPTURES))
                data[at:at] = other[draw(st.integers(0, 200)) :][:100]
            case "repeat":
                data[at:at] = data[at : at + draw(st.integers(1, 60))]
    return bytes(data)


def _familiar(draw: st.DrawFn) -> str:
    fixed = [
        "CONTENT_LENGTH",
        "SCGI",
        "REQUEST_METHOD",
        "PATH_INFO",
        "HTTP_COOKIE",
        "HTTP_PROXY",
        "HTTP_",
        "wsgi.x",
        "",
    ]
    return draw(st.sampled_from(fixed) | st.text("HTP_Xx.-~ \n\xe9", max_size=6).map("HTTP_".__add__))


NAMES = st.composite(_familiar)() | st.text(st.characters(max_codepoint=255, exclude_characters="\0"), max_size=8)
VALUES = st.sampled_from(["", "0", "1", "5", "+5", "007", "\xb2", "a\nb", "a\r"]) | st.text(
    st.characters(max_codepoint=255), max_size=12
)


@st.composite
def structured_heads(draw: st.DrawFn) -> bytes:
    """A netstring of names and values that are nearly right, and a length that is nearly right."""
    pairs = draw(st.lists(st.tuples(NAMES, VALUES), max_size=12))
    if draw(st.integers(0, 4)):
        pairs.insert(0, ("CONTENT_LENGTH", draw(VALUES)))
        pairs.insert(draw(st.integers(1, len(pairs))), ("SCGI", "1"))
    content = "".join(f"{name}\0{value}\0" for name, value in pairs).encode("latin-1")
    data = netstring(content)
    if not draw(st.integers(0, 3)):
        length = draw(st.sampled_from(["0%d", "+%d", "%d ", "-%d", "%d0", "1%d"])) % len(content)
        data = length.encode() + data[data.index(b":") :]
    return data + draw(st.binary(max_size=8))


ANY_BYTES = st.one_of(st.binary(max_size=200), mutated_captures(), structured_heads())


@st.composite
def splits(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    data = draw(ANY_BYTES)
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=6)))
    return data, [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@given(splits(), st.sampled_from([Limits(), TIGHT]), st.booleans())
@example((GOOD, [GOOD[:-1], b",", b""]), Limits(), True)
def test_any_bytes_are_a_head_more_or_a_protocol_error_the_same_whole_or_split(
    bytes_and_pieces: tuple[bytes, list[bytes]], limits: Limits, require_scgi: bool
) -> None:
    data, pieces = bytes_and_pieces
    whole = at_once(data, limits, require_scgi)
    assert in_pieces(pieces, limits, require_scgi) == whole
    assert in_pieces((data[i : i + 1] for i in range(len(data))), limits, require_scgi) == whole
    if whole.code:
        assert whole.status in (400, 413, 431)
        assert at_once(data + TAIL, limits, require_scgi) == whole
    elif whole.content_length is not None:
        followed = Verdict(whole.variables, whole.content_length, whole.rest + TAIL)
        assert at_once(data + TAIL, limits, require_scgi) == followed
        check_promises(whole, limits)


def check_promises(found: Verdict, limits: Limits) -> None:
    """What holds for every request that reaches an application."""
    variables = dict(found.variables)
    assert next(iter(variables)) == "CONTENT_LENGTH"
    assert found.content_length == int(variables["CONTENT_LENGTH"]) <= limits.body
    assert len(variables) <= limits.variables
    assert variables.get("SCGI", "1") == "1"
    for name, value in variables.items():
        assert name.isascii()
        assert name.replace("_", "a").replace(".", "a").replace("-", "a").isalnum()
        assert not name.startswith(("wsgi.", "scgi."))
        assert "\0" not in value
        if name.startswith("HTTP_"):
            assert "\n" not in value
            assert "\r" not in value
    withheld = {"HTTP_PROXY", "HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING"}
    assert not withheld & {name.upper() for name in variables}


@given(st.lists(st.tuples(NAMES, VALUES), max_size=12), st.integers(-1, 1 << 30))
def test_whatever_build_head_builds_arrives_as_it_was(pairs: list[tuple[str, str]], length: int) -> None:
    try:
        data = build_head(pairs, length)
    except MisuseError:
        return
    head = parse_head(data)
    assert head is not None
    withheld = {"HTTP_PROXY", "HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING"}
    sent = {"CONTENT_LENGTH": str(length), "SCGI": "1", **dict(pairs)}
    assert head.variables == {name: value for name, value in sent.items() if name.upper() not in withheld}
    assert (head.content_length, head.end) == (length, len(data))
