"""A whole Flower net on one machine, for tests and benchmarks."""

from __future__ import annotations

from pathlib import Path

import psutil
from flip_nnunet.testing import local_net
from flip_nnunet.testing.local_net import TRUSTS, command_of

from flip_flower.kit import Net
from flip_flower.provision import Plan, provision

_LONG_LIVED = {"flip_flower.superlink", "flower-superexec", "flip_flower.supernode", "flip_flower.executor"}


class LocalNet(local_net.LocalNet):
    """A net of a SuperLink and two SuperNodes. Of a run are the ServerApp at the hub, and a boxed trainer at a site."""

    package = "flip_flower"
    ports = range(30500, 30590, 2)

    def make_kits(self, port: int) -> None:
        provision(Plan(Net("net1", "localhost", port, port + 1), TRUSTS), self.kits)

    def is_of_a_run(self, process: psutil.Process) -> bool:
        words = {Path(word).name for word in command_of(process)}
        return bool(words) and not words & _LONG_LIVED
