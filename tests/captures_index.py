"""The captured requests of real web servers, one `Capture` for each row of `captures/index.md`.

For tests only. It imports nothing of `scgi`, so that what the tests compare with is not what they test:
`variables` is split here by the plainest reading of the format.
"""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

FOLDER = Path(__file__).parent / "captures"
ROW = re.compile(
    r"\| (?P<file>\S+\.bin) \| (?P<size>\d+) \| (?P<count>\d+) \| '(?P<content_length>\d*)' \|"
    r" (?P<body_size>\d+) \| (?P<duplicates>[A-Z_ ]*?) ?\| (?P<note>.*) \|"
)


@dataclass(frozen=True)
class Capture:
    file: str
    size: int  # of the whole file
    count: int  # of variables, repeated ones counted each time
    content_length: str  # as it stands there; may be empty
    body_size: int  # bytes that follow the head; may differ from content_length
    duplicates: tuple[str, ...]  # names that occur more than once
    note: str

    @property
    def name(self) -> str:
        """`nginx-get`; serves as the test's id."""
        return self.file.removesuffix(".bin")

    @property
    def front(self) -> str:
        return self.name.partition("-")[0]

    @property
    def case(self) -> str:
        return self.name.partition("-")[2]

    @property
    def data(self) -> bytes:
        return (FOLDER / self.file).read_bytes()

    @cached_property
    def variables(self) -> tuple[tuple[str, str], ...]:
        """All variables in their order, decoded as Latin-1."""
        size, _, rest = self.data.partition(b":")
        items = rest[: int(size)].decode("latin-1").split("\0")
        return tuple(zip(items[:-1:2], items[1::2], strict=True))

    @property
    def body(self) -> bytes:
        data = self.data
        return data[len(data) - self.body_size :]

    @property
    def environ(self) -> dict[str, str]:
        """A new dict of the variables; of a repeated one, the last."""
        return dict(self.variables)


def load() -> list[Capture]:
    """Every row of the index, in its order."""
    return [
        Capture(
            file=row["file"],
            size=int(row["size"]),
            count=int(row["count"]),
            content_length=row["content_length"],
            body_size=int(row["body_size"]),
            duplicates=tuple(row["duplicates"].split()),
            note=row["note"],
        )
        for row in ROW.finditer((FOLDER / "index.md").read_text("utf-8"))
    ]


CAPTURES = load()
BY_NAME = {capture.name: capture for capture in CAPTURES}
