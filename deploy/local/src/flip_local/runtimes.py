"""The frameworks that a net can run on, as the local stack installs and provisions them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flip_contracts.projects import Framework


@dataclass(frozen=True, slots=True)
class Runtime:
    """The environment of a framework under `.local`, and the package in it that has `provision`."""

    environment: str
    package: str
    has_control_port: bool
    """Whether a net's server serves the hub's own parts at a port of their own."""


RUNTIMES: Mapping[Framework, Runtime] = {
    "nvflare": Runtime("trainer-flare", "flip_flare", has_control_port=False),
    "flower": Runtime("trainer-flower", "flip_flower", has_control_port=True),
}
