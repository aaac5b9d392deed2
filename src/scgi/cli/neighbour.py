"""The reference's own distribution, `scgi` on PyPI, puts its files into the same folder as ours.

Whichever is installed last overwrites the other's files, and uninstalling one takes files of the other with
it. Imports `errors`.
"""

from __future__ import annotations

import importlib.metadata
import os

from scgi.errors import ScgiError


def mixed_folder() -> str:
    """A sentence if the distribution `scgi` is installed in our folder, else ""."""
    try:
        other = importlib.metadata.distribution("scgi")
    except importlib.metadata.PackageNotFoundError:
        return ""
    ours = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    try:
        same = os.path.samefile(str(other.locate_file("scgi")), ours)
    except OSError:
        return ""
    if not same:
        return ""
    return (
        f"the package 'scgi' {other.version} is installed in the same folder as 'scgi-server' ({ours}), and"
        " their files are mixed; run: pip uninstall -y scgi scgi-server && pip install scgi-server"
    )


def refuse_mixed_folder() -> None:
    if sentence := mixed_folder():
        raise ScgiError(sentence)
