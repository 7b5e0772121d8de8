"""What lies in a kit, and the environment in which Flower runs from it."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from flip_nnunet.files import replace_json

AUTHORITY_CERTIFICATE, SERVER_CERTIFICATE, KEY = "authority.pem", "certificate.pem", "key.pem"
TRUST_KEYS = "trusts"
"""The folder of the server's kit with the public key of each Trust, `CODE.pem`."""

EXECUTOR_CREDENTIAL = "executor.secret"
"""The file of a Trust's kit by which its SuperNode knows its executor. It is made anew at each start."""

_NET_FILE = "net.json"
_POLL_S = "0.5"


@dataclass(frozen=True, slots=True)
class Net:
    """A net's name and where its SuperLink listens: to Trusts at `host:port`, to the hub itself at `control`."""

    name: str
    host: str
    port: int
    control_port: int

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def control(self) -> str:
        return f"127.0.0.1:{self.control_port}"

    def write(self, kit: Path) -> None:
        replace_json(kit / _NET_FILE, asdict(self))

    @classmethod
    def read(cls, kit: Path) -> Self:
        """The net that `kit` is for. Raises ValueError if `kit` is none."""
        try:
            return cls(**json.loads((kit / _NET_FILE).read_bytes()))
        except (OSError, TypeError, ValueError) as error:
            raise ValueError(f"{kit} is not a kit of flip_flower.provision: {error}") from error


def flower_environment(kit: Path) -> dict[str, str]:
    """What Flower's processes are told: a home of the kit's own, no telemetry, no look for updates, short
    waits, and no line in the log for every look for work.

    Flower starts its parts by name, so the interpreter's folder leads the path.
    """
    return {
        "FLWR_HOME": str(kit / "flower"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_LOG_LEVEL": "WARNING",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": _POLL_S,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
    }
