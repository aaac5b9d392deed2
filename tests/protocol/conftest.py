"""hypothesis: quick by default, `HYPOTHESIS_PROFILE=long` for a search of minutes."""

import os

from hypothesis import HealthCheck, settings

QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much]
settings.register_profile("quick", max_examples=150, deadline=None, suppress_health_check=QUIET)
settings.register_profile("long", max_examples=20_000, deadline=None, suppress_health_check=QUIET)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))
