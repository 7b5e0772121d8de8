"""Where everything of one local stack lives: its ports, folders and files.

Two stacks run side by side when their `state` and `port_base` differ; nothing else is shared but the read-only
downloads under `Layout.downloads`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from flip_contracts.projects import Framework

from flip_local.runtimes import RUNTIMES

CHECKOUT = Path(__file__).resolve().parents[4]
DEFAULT_PORT_BASE = 28000

HUB = "hub"
HUB_SERVICES = ("auth", "projects", "cohort", "imaging", "files", "scheduler", "audit")
"""The hub's services with one process each; a trainer-node controller runs once a net besides them."""

_HUB_PARTS = ("gateway", "kafka", "kafka-controller", "postgres-hub", "s3", "smtp", "smtp-mails", "clamd")
_TRUST_PARTS = ("postgres", "pacs", "pacs-dicom", "archive", "archive-dicom", "importer-dicom", "cohort", "imaging")
_SERVICES_OFFSET = 20
_NETS_OFFSET = 40
_TRUSTS_OFFSET = 100
_PORTS_A_NET = 4
_MOST_NETS = (_TRUSTS_OFFSET - _NETS_OFFSET) // _PORTS_A_NET
_PORTS_A_TRUST = 40
_WORKERS_OFFSET = 20


@dataclass(frozen=True, slots=True)
class Net:
    """A federation slot. One that is `on_request` is not started with the rest of the stack: who wants it names it."""

    name: str
    framework: Framework
    on_request: bool = False


NETS = (Net("net1", "nvflare"), Net("flower1", "flower", on_request=True))
"""A net of each framework. The second one's idle parts hold some 560 MiB, which neither the demo's first run nor the
tests of the whole stack use: the demo asks for it when it comes to its second run, anyone else by `flip-local start`.
"""


@dataclass(frozen=True)
class Layout:
    """One local stack. Every path below is absolute; every port is on 127.0.0.1."""

    checkout: Path = CHECKOUT
    state: Path = CHECKOUT / ".local" / "stack"
    port_base: int = DEFAULT_PORT_BASE
    trusts: tuple[str, ...] = ("KCH", "UCLH")
    nets: tuple[Net, ...] = NETS
    trainers: Path = CHECKOUT / ".local"
    """Where the trainers' Python environments are."""
    forwarded: frozenset[str] = frozenset()
    """Trusts that reach a net's server at `<net>-fl-forwarded`: whoever names them sees to it that something listens
    there."""

    def __post_init__(self) -> None:
        if len(self.nets) > _MOST_NETS:
            raise ValueError(f"a local stack has room for {_MOST_NETS} nets, not {len(self.nets)}")

    @classmethod
    def from_environment(cls) -> Layout:
        """The checkout's own stack, changed by `FLIP_STATE`, `FLIP_PORT_BASE`, `FLIP_TRAINERS` and `FLIP_FORWARDED`.

        Raises:
            ValueError: `FLIP_PORT_BASE` isn't a port with room for the stack above it.
        """
        state = os.environ.get("FLIP_STATE")
        port_base = os.environ.get("FLIP_PORT_BASE", str(DEFAULT_PORT_BASE))
        if not port_base.isdecimal() or not 1024 <= int(port_base) <= 65000:
            raise ValueError(f"FLIP_PORT_BASE must be a number from 1024 to 65000, not {port_base!r}")
        return cls(
            state=Path(state).absolute() if state else cls.state,
            port_base=int(port_base),
            trainers=Path(os.environ.get("FLIP_TRAINERS", cls.trainers)),
            forwarded=frozenset(os.environ.get("FLIP_FORWARDED", "").split()),
        )

    @property
    def as_environment(self) -> Mapping[str, str]:
        """What makes `from_environment` give this layout, in another process."""
        return {
            "FLIP_STATE": str(self.state),
            "FLIP_PORT_BASE": str(self.port_base),
            "FLIP_TRAINERS": str(self.trainers),
            "FLIP_FORWARDED": " ".join(sorted(self.forwarded)),
        }

    # --- ports ----------------------------------------------------------------------------------------------------
    @cached_property
    def ports(self) -> Mapping[str, int]:
        """Every port by its name: `kafka`, `auth`, `postgres-KCH`, `pacs-dicom-KCH`, `net1`, `net1-fl`, `net1-KCH`."""
        return {name: self.port_base + offset for name, offset in self._offsets()}

    def _offsets(self) -> Iterator[tuple[str, int]]:
        yield from ((name, offset) for offset, name in enumerate(_HUB_PARTS))
        yield from ((name, _SERVICES_OFFSET + index) for index, name in enumerate(HUB_SERVICES))
        for index, net in enumerate(self.nets):
            first = _NETS_OFFSET + index * _PORTS_A_NET
            own = (net.name, f"{net.name}-fl", f"{net.name}-fl-control", f"{net.name}-fl-forwarded")
            yield from ((name, first + offset) for offset, name in enumerate(own))
        for index, trust in enumerate(self.trusts):
            first = _TRUSTS_OFFSET + index * _PORTS_A_TRUST
            yield from ((f"{name}-{trust}", first + offset) for offset, name in enumerate(_TRUST_PARTS))
            yield from (
                (f"{net.name}-{trust}", first + _WORKERS_OFFSET + offset) for offset, net in enumerate(self.nets)
            )

    def port(self, name: str) -> int:
        """The port called `name`; `KeyError` if the stack has none of that name."""
        return self.ports[name]

    def url(self, name: str) -> str:
        """The plain HTTP address of the part or service called `name`."""
        return f"http://127.0.0.1:{self.port(name)}"

    @property
    def gateway_url(self) -> str:
        """What a browser or the `flip` client opens."""
        return f"https://localhost:{self.port('gateway')}"

    @property
    def kafka(self) -> str:
        """The broker's `host:port`."""
        return f"127.0.0.1:{self.port('kafka')}"

    # --- what does not depend on a stack --------------------------------------------------------------------------
    @property
    def downloads(self) -> Path:
        """Downloaded and built parts, shared by every stack of the checkout."""
        return self.checkout / ".local" / "parts"

    def trainer_python(self, framework: Framework) -> Path:
        """The interpreter of a framework's trainer environment."""
        return self.trainers / RUNTIMES[framework].environment / "bin" / "python"

    # --- folders of this stack ------------------------------------------------------------------------------------
    @property
    def logs(self) -> Path:
        """One `<part>.log` each."""
        return self.state / "logs"

    @property
    def pki(self) -> Path:
        """Certificates and keys."""
        return self.state / "pki"

    @property
    def secrets(self) -> Path:
        """Passwords and tokens, one file each."""
        return self.state / "secrets"

    @property
    def clusters(self) -> tuple[str, ...]:
        """The Postgres clusters: the hub's and one a Trust."""
        return (HUB, *self.trusts)

    def folder(self, owner: str, *names: str) -> Path:
        """A folder of the hub (`"hub"`) or of one Trust: `<state>/hub/kafka`, `<state>/trust/KCH/data`."""
        if owner == HUB:
            return self.state.joinpath(HUB, *names)
        if owner not in self.trusts:
            raise KeyError(f"this stack has no Trust {owner}")
        return self.state.joinpath("trust", owner, *names)

    def data(self, trust: str) -> Path:
        """Where a Trust's imaging and trainer-node keep images, labels and prepared data sets."""
        return self.folder(trust, "data")

    def datasets(self, trust: str) -> Path:
        """Where a Trust's operator lays ready nnU-Net data sets."""
        return self.folder(trust, "datasets")

    def kits(self, net: Net) -> Path:
        """The provisioned kits of a net: its server's, the hub's driver's, and one a Trust."""
        return self.state / "kits" / net.name

    # --- files of this stack --------------------------------------------------------------------------------------
    @property
    def ca(self) -> Path:
        """The certificate of the stack's own authority."""
        return self.pki / "ca.pem"

    @property
    def ca_key(self) -> Path:
        """The key of that authority."""
        return self.pki / "ca-key.pem"

    def certificate(self, principal: str) -> Path:
        """Key, certificate and CA of a principal such as `service.auth` or `trust.KCH`, in one PEM file."""
        return self.pki / f"{principal}.pem"

    @property
    def signing_key(self) -> Path:
        """The Ed25519 key with which `auth` signs access tokens."""
        return self.pki / "auth-signing-key.pem"

    @property
    def ledger_key(self) -> Path:
        """The Ed25519 key with which `audit` signs checkpoints and exports."""
        return self.pki / "ledger-signing-key.pem"

    def log(self, part: str) -> Path:
        """What `part` has written since the stack was started."""
        return self.logs / f"{part}.log"

    @property
    def control(self) -> Path:
        """The supervisor's control socket."""
        return self.state / "control.sock"

    @property
    def lock(self) -> Path:
        """Held by the supervisor while it lives."""
        return self.state / "supervisor.lock"
