"""The startup kits of each net's FLARE server, its driver at the hub, and its client at every Trust."""

from __future__ import annotations

from pathlib import Path

from flip_local.layout import Layout
from flip_local.part import Part, TaskProbe


def parts(layout: Layout) -> list[Part]:
    """One provisioning task a net."""
    return [
        Part(
            name=f"flare-kits-{net}",
            command=(
                str(layout.flare_python),
                "-m",
                "flip_flare.provision",
                *("--net", net),
                *("--trusts", ",".join(layout.trusts)),
                *("--port", str(layout.port(f"{net}-fl"))),
                *("--output", str(layout.flare(net))),
            ),
            ready=TaskProbe(),
        )
        for net in layout.nets
    ]


def server_kit(layout: Layout, net: str) -> Path:
    """The kit of a net's FLARE server."""
    return layout.flare(net) / "server"


def admin_kit(layout: Layout, net: str) -> Path:
    """The kit with which the hub's driver submits jobs."""
    return layout.flare(net) / "admin"


def client_kit(layout: Layout, net: str, trust: str) -> Path:
    """The kit of a Trust's FLARE client."""
    return layout.flare(net) / trust
