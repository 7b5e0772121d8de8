"""What a Trust says about itself in the environment of its FLARE client."""

from __future__ import annotations

import os

from flip_nnunet.site_settings import SiteSettings


def site_settings() -> SiteSettings:
    """From FLIP_FLARE_RUNS, _MINIMUM_CASES and _SANDBOX. Raises ValueError naming what is missing or malformed."""
    return SiteSettings.from_environment(os.environ, "FLIP_FLARE")
