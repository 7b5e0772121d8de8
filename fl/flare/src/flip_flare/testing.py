"""A whole FLARE net on one machine, for tests and benchmarks."""

from __future__ import annotations

import psutil
from flip_nnunet.testing import local_net
from flip_nnunet.testing.local_net import TRUSTS

from flip_flare.provision import Net, provision


class LocalNet(local_net.LocalNet):
    """A net of a server and two clients. Of a run are the processes of jobs: all but the one that each part keeps."""

    package = "flip_flare"
    ports = range(29500, 29590)

    def make_kits(self, port: int) -> None:
        provision(Net("net1", TRUSTS, port), self.kits)

    def is_of_a_run(self, process: psutil.Process) -> bool:
        return process.pid not in self.kept()
