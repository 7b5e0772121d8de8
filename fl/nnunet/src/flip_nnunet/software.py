"""Which software a site or the hub runs, for the seal of results."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = (
    "flip-nnunet",
    "flip-flare",
    "flip-flower",
    "flip-apps",
    "nnunetv2",
    "torch",
    "numpy",
    "dynamic-network-architectures",
    "batchgeneratorsv2",
    "nvflare",
    "flwr",
    "monai",
)


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that decide a run's outcome, as far as they are installed here."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
