"""The driver of FLARE nets."""

from __future__ import annotations

from pathlib import Path

from flip_flare.provision import Net, provision
from flip_nnunet.testing.driver_suite import DriverSuite

NOBODY_LISTENS = 29599


class TestFlareDriver(DriverSuite):
    package = "flip_flare"

    def make_kits(self, folder: Path) -> None:
        provision(Net("net1", ("KCH",), NOBODY_LISTENS), folder)
