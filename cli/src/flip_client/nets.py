"""`flip nets` and `flip queue`: what runs where, and in which order, from a terminal."""

from typing import Annotated

import typer

from flip_client.hub import View
from flip_client.terminal import logged_in, show_table, show_view

nets = typer.Typer(no_args_is_help=True, help="The nets: what they do, draining and retiring them.")
queue = typer.Typer(no_args_is_help=True, help="The runs that wait for a net, and their order.")

Because = Annotated[str, typer.Option(help="Why; it is recorded.")]


@nets.command("list")
def list_nets() -> None:
    """List the nets."""
    with logged_in() as hub:
        show_table(hub.nets(), "net", "framework", "state", "draining", "trusts", "run_id", "heard_at")


@nets.command()
def drain(net: str, because: Because) -> None:
    """Give a net no further run; it ends what it has."""
    with logged_in() as hub:
        show_view(hub.drain_net(net, because))


@nets.command()
def undrain(net: str, because: Because) -> None:
    """Let a net take runs again."""
    with logged_in() as hub:
        show_view(hub.drain_net(net, because, draining=False))


@nets.command()
def retire(net: str, because: Because) -> None:
    """Strike off a net that is gone, or whose controller has lost its database; a restart brings it back."""
    with logged_in() as hub:
        hub.retire_net(net, because)


@queue.command("list")
def list_queue() -> None:
    """List the waiting runs of all projects, in order."""
    with logged_in() as hub:
        rows = [
            {**each, "start": _start(each["start"]), "waits_for": _lacks(each["waits_for"])} for each in hub.queue()
        ]
    show_table(rows, "queue_position", "run_id", "project_id", "level", "weight", "waits_for", "start")


def _start(start: View) -> str:
    return start["at"] or f"unknown: {start['unknown_because']}"


def _lacks(lacks: list[View]) -> str:
    return "; ".join(" ".join([lack["code"], *lack["trusts"]]) for lack in lacks)


@queue.command()
def prioritise(run_id: str, priority: Annotated[int, typer.Argument(min=0, max=9)], because: Because) -> None:
    """Give a run another priority: from 0, the last, to 9, the first."""
    with logged_in() as hub:
        show_view(hub.prioritise(run_id, priority, because))


@queue.command()
def weigh(project_id: str, weight: Annotated[int, typer.Argument(min=1, max=10)], because: Because) -> None:
    """Give a project that many turns where one of weight 1 gets one."""
    with logged_in() as hub:
        show_view(hub.weigh(project_id, weight, because))
