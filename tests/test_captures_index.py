"""The test data itself: the index says what the files hold."""

import pytest

from captures_index import CAPTURES, FOLDER, Capture


@pytest.mark.parametrize("capture", CAPTURES, ids=lambda c: c.name)
def test_each_row_of_the_index_describes_its_file(capture: Capture) -> None:
    names = [name for name, _ in capture.variables]
    head, _, rest = capture.data.partition(b":")
    assert len(capture.data) == capture.size
    assert len(names) == capture.count
    assert capture.environ["CONTENT_LENGTH"] == capture.content_length
    assert len(rest) - int(head) - len(",") == len(capture.body) == capture.body_size
    assert tuple(sorted({name for name in names if names.count(name) > 1})) == capture.duplicates


def test_every_captured_request_has_a_row() -> None:
    on_disk = {path.name for path in FOLDER.glob("*.bin") if not path.name.startswith("rtorrent-")}
    assert {capture.file for capture in CAPTURES} == on_disk
    assert len(on_disk) == 468
