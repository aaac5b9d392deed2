from __future__ import annotations

from collections.abc import Iterator

import pytest

from interop.sites import PLACES, Site, open_site


@pytest.fixture(scope="module", params=PLACES)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    with open_site(request.param) as site:
        yield site
