"""The driver of Flower nets."""

from __future__ import annotations

from pathlib import Path

from flip_flower.kit import Net
from flip_flower.provision import Plan, provision
from flip_nnunet.testing.driver_suite import DriverSuite

NOBODY_LISTENS = 30599


class TestFlowerDriver(DriverSuite):
    package = "flip_flower"

    def make_kits(self, folder: Path) -> None:
        provision(Plan(Net("net1", "localhost", NOBODY_LISTENS - 1, NOBODY_LISTENS), ("KCH",)), folder)
