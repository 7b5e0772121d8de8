"""What a Trust says about itself in the environment of its FLARE client."""

from __future__ import annotations

import os

from flip_nnunet.site_settings import SiteSettings


def site_settings() -> SiteSettings:
    """From `FLIP_FLARE_*`, as `SiteSettings.from_environment` names them. Raises ValueError as it does."""
    return SiteSettings.from_environment(os.environ, "FLIP_FLARE")
