"""The kits of each net's server, of its driver at the hub, and of its client at every Trust."""

from __future__ import annotations

from pathlib import Path

from flip_local.layout import Layout, Net
from flip_local.part import Part, TaskProbe
from flip_local.runtimes import RUNTIMES


def parts(layout: Layout) -> list[Part]:
    """One provisioning task a net."""
    return [
        Part(
            name=task_name(net),
            command=_provision(layout, net),
            ready=TaskProbe(),
            on_request=net.on_request,
        )
        for net in layout.nets
    ]


def _provision(layout: Layout, net: Net) -> tuple[str, ...]:
    runtime = RUNTIMES[net.framework]
    control_port = ("--control-port", str(layout.port(f"{net.name}-fl-control"))) if runtime.has_control_port else ()
    return (
        *(str(layout.trainer_python(net.framework)), "-m", f"{runtime.package}.provision"),
        *("--net", net.name),
        *("--trusts", ",".join(layout.trusts)),
        *("--port", str(layout.port(f"{net.name}-fl"))),
        *control_port,
        *(f"--through={trust}={layout.port(f'{net.name}-fl-forwarded')}" for trust in sorted(layout.forwarded)),
        *("--output", str(layout.kits(net))),
    )


def task_name(net: Net) -> str:
    """The name of the task that makes a net's kits."""
    return f"kits-{net.name}"


def server_kit(layout: Layout, net: Net) -> Path:
    """The kit of a net's server."""
    return layout.kits(net) / "server"


def admin_kit(layout: Layout, net: Net) -> Path:
    """The kit with which the hub's driver submits jobs."""
    return layout.kits(net) / "admin"


def client_kit(layout: Layout, net: Net, trust: str) -> Path:
    """The kit of a Trust's client."""
    return layout.kits(net) / trust
