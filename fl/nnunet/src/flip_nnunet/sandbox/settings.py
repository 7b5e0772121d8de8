"""What a Trust says about its sandbox, in one JSON object. All of it has a default, and none is "no sandbox"."""

from __future__ import annotations

from typing import Literal

import psutil
from pydantic import BaseModel, ConfigDict, Field, PositiveInt

_MIB = 2**20
_DAY_S = 24 * 3600


class SandboxSettings(BaseModel):
    """Which walls, and how much a run may use at this Trust."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["bubblewrap", "pod"] = "bubblewrap"
    """`pod`: the container that all of this runs in is the box (docs/sandbox.md says what it must be set to)."""
    user: int = Field(default=59000, ge=1000, le=2**31 - 1)
    """The user and group id of what is boxed, where the client runs as root; else the client's own."""
    memory_mib: PositiveInt = Field(default_factory=lambda: psutil.virtual_memory().total * 3 // 4 // _MIB)
    """Of all processes together; by default three quarters of the machine's."""
    processes: PositiveInt = 1024
    """Processes and threads together."""
    time_s: PositiveInt = 14 * _DAY_S
    output_mib: PositiveInt = 200 * 1024
    """What may be added to the disk by one trainer, and the size of its largest file."""

    @property
    def memory_bytes(self) -> int:
        return self.memory_mib * _MIB

    @property
    def output_bytes(self) -> int:
        return self.output_mib * _MIB
