"""Which walls a Trust's settings ask for."""

from __future__ import annotations

from flip_nnunet.sandbox.bubblewrap import Bubblewrap
from flip_nnunet.sandbox.pod import Pod
from flip_nnunet.sandbox.port import Confinement
from flip_nnunet.sandbox.settings import SandboxSettings


def confinement(settings: SandboxSettings) -> Confinement:
    return Bubblewrap(settings) if settings.kind == "bubblewrap" else Pod()


def check(settings: SandboxSettings) -> None:
    """Raise SandboxUnavailable unless trainers can be boxed here as `settings` says."""
    confinement(settings).check()
