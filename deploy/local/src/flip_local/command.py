"""`flip-local`: the local stack's command."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from flip_local import control, install, stack
from flip_local.control import StackProblem
from flip_local.layout import Layout

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
console = Console()

Names = Annotated[list[str], typer.Argument(help="Names of parts, as `flip-local status` shows them.")]
_STYLES = {"ready": "green", "done": "green", "backing off": "yellow", "starting": "yellow", "failed": "red"}


@contextmanager
def _problems_in_one_line() -> Iterator[None]:
    try:
        yield
    except (StackProblem, ValueError) as problem:
        console.print(str(problem), style="red", markup=False, highlight=False)
        raise typer.Exit(1) from None


@app.command("install")
def install_command() -> None:
    """Install what the stack's parts are made of; nothing happens where all is there."""
    with _problems_in_one_line():
        install.install(Layout.from_environment(), lambda step: console.print(f"installing {step}"))


@app.command()
def up(
    only: Annotated[str, typer.Option(help="`parts`, `services`, or names of parts, separated by commas.")] = "",
) -> None:
    """Start the stack, or the named parts and all that they need, and return when everything is ready."""
    with _problems_in_one_line():
        layout = Layout.from_environment()
        names = _chosen(layout, only)
        began = time.monotonic()
        seen: dict[str, str] = {}
        with Live(console=console, transient=True, refresh_per_second=8) as live:

            def show(part: str, state: str) -> None:
                seen[part] = state
                live.update(_progress(seen))
                if not console.is_terminal and state in ("ready", "done"):
                    console.print(f"{time.monotonic() - began:6.1f} s  {part} {state}", highlight=False)

            control.up(layout, names, show)
        took_s = time.monotonic() - began
        console.print(f"{len(seen)} parts are ready after {took_s:.0f} s; the gateway is {layout.gateway_url}")


def _chosen(layout: Layout, only: str) -> list[str]:
    parts = stack.parts(layout)
    if not only:
        return list(stack.usual(layout))
    chosen = only.split(",")
    names = [name for name, part in parts.items() if name in chosen or (part.group in chosen and not part.on_request)]
    if unknown := set(chosen) - set(parts) - {"parts", "services"}:
        raise StackProblem(f"no part is called {', '.join(sorted(unknown))}: {', '.join(parts)}")
    return names


def _progress(seen: dict[str, str]) -> Table:
    table = Table.grid(padding=(0, 2))
    for part, state in seen.items():
        if state not in ("ready", "done"):
            table.add_row(part, f"[{_STYLES.get(state, 'dim')}]{state}")
    ready = sum(state in ("ready", "done") for state in seen.values())
    table.add_row(f"[bold]{ready} of {len(seen)} parts are ready")
    return table


@app.command()
def down() -> None:
    """Stop everything; no process of the stack is left."""
    with _problems_in_one_line():
        control.down(Layout.from_environment())


@app.command()
def status() -> None:
    """Show each part's state, restarts and memory."""
    with _problems_in_one_line():
        parts = control.status(Layout.from_environment())
    table = Table("part", "state", "pid", "restarts", "for", "PSS MiB", box=None)
    for part in parts:
        style = _STYLES.get(part["state"], "dim")
        pid = str(part["pid"] or "")
        memory = f"{part['pss_mib']:.0f}" if part["pid"] else ""
        table.add_row(
            part["name"], f"[{style}]{part['state']}", pid, str(part["restarts"]), _ago(part["for_s"]), memory
        )
    table.add_row("", "", "", "", "[bold]total", f"[bold]{sum(part['pss_mib'] for part in parts):.0f}")
    console.print(table)


def _ago(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{seconds:02}s" if minutes else f"{seconds}s"


@app.command()
def logs(
    name: Annotated[str, typer.Argument(help="The part.")],
    lines: Annotated[int, typer.Option("--lines", "-n", help="How many of the last lines.")] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on showing what comes.")] = False,
) -> None:
    """Show what a part has written."""
    with _problems_in_one_line():
        layout = Layout.from_environment()
        if not layout.log(name).exists():
            known = sorted(path.stem for path in layout.logs.glob("*.log"))
            raise StackProblem(f"{name} has written nothing; there are logs of: {', '.join(known)}")
    if follow:
        raise typer.Exit(subprocess.run(("tail", f"-n{lines}", "-F", str(layout.log(name))), check=False).returncode)
    print(control.log_tail(layout, name, lines))


@app.command()
def start(names: Names) -> None:
    """Start parts, and all that they need, and return when they are ready."""
    with _problems_in_one_line():
        control.up(Layout.from_environment(), names)


@app.command()
def stop(names: Names) -> None:
    """Stop parts and keep them stopped."""
    with _problems_in_one_line():
        control.stop(Layout.from_environment(), names)


@app.command()
def restart(names: Names) -> None:
    """Stop parts, start them again, and return when they are ready."""
    with _problems_in_one_line():
        control.restart(Layout.from_environment(), names)


@app.command()
def kill(
    name: Annotated[str, typer.Argument(help="The part.")],
    number: Annotated[str, typer.Option("--signal", help="KILL, TERM, STOP, CONT, ...")] = "KILL",
) -> None:
    """Send a signal to a part's main process; the supervisor starts it again as after any crash."""
    with _problems_in_one_line():
        control.kill(Layout.from_environment(), name, signal.Signals[f"SIG{number.upper().removeprefix('SIG')}"])
