"""The processes of a net, found by what they were started with, and killed as a crash would."""

import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from flip_contracts.base import RunId
from flip_contracts.projects import Framework
from flip_local import control
from flip_local.layout import Layout, Net
from flip_local.parts import kits
from flip_trainer_node.runtimes import RUNTIMES
from flip_trainer_node.trainers import processes_of, started_with

from .cases import Killed

_SERVERS: Mapping[Framework, str] = {
    "nvflare": "nvflare.private.fed.app.server.server_train",
    "flower": "flip_flower.superlink",
}
_CLIENTS: Mapping[Framework, str] = {
    "nvflare": "nvflare.private.fed.app.client.client_train",
    "flower": "flip_flower.supernode",
}


class NobodyThere(Exception):
    """No process of that kind runs."""


@dataclass(frozen=True, slots=True)
class Victims:
    """Who may be killed of a net, and at which Trust."""

    layout: Layout
    net: Net
    trust: str

    def kill(self, part: Killed, run_id: str) -> None:
        """End a part with SIGKILL. Raises NobodyThere."""
        match part:
            case "controller":
                control.kill(self.layout, self.net.name)
            case "worker":
                control.kill(self.layout, f"{self.net.name}-{self.trust}")
            case "server":
                _kill(started_with(_SERVERS[self.net.framework], str(kits.server_kit(self.layout, self.net))))
            case "client":
                kit = kits.client_kit(self.layout, self.net, self.trust)
                _kill(started_with(_CLIENTS[self.net.framework], str(kit)))
            case "trainer":
                _kill(started_with(self._trainer_script, run_id)[:1])

    def of_run(self, run_id: str) -> list[int]:
        """What runs for a run at any Trust: its trainers and the boxes that they and NVFLARE's jobs are in."""
        return processes_of(self._trainer_script, RunId(UUID(run_id)))

    @property
    def _trainer_script(self) -> str:
        return RUNTIMES[self.net.framework].trainer_script


def _kill(processes: Sequence[int]) -> None:
    if not processes:
        raise NobodyThere
    for each in processes:
        os.kill(each, signal.SIGKILL)
