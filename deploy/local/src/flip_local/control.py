"""Starts, asks and ends the supervisor of one stack from outside."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from flip_local import pki
from flip_local.layout import Layout
from flip_local.processes import holder_of

_LOG_TAIL_LINES = 25
LEAST_FREE_GIB = 5
_WAIT_S = 120.0
_WAIT_STEP_S = 0.05


class StackProblem(Exception):
    """Something that whoever runs the stack can mend; the text says what and how."""


def is_running(layout: Layout) -> bool:
    """Whether a supervisor keeps this stack."""
    if not layout.lock.exists():
        return False
    with layout.lock.open("r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def up(layout: Layout, names: Iterable[str], on_state: Callable[[str, str], None] = lambda part, state: None) -> None:
    """Start the named parts and all that they need, and return when every one is ready.

    `on_state` is told each part's name and new state on the way.

    Raises:
        StackProblem: a port is in use, the disk is full, the stack was made with other ports, or a part doesn't become
            ready.
    """
    _require_room(layout)
    _require_same_ports(layout)
    is_new = _have_supervisor(layout)
    last: dict[str, Any] = {}
    for last in _ask(layout, {"do": "up", "names": list(names)}):
        if "state" in last:
            on_state(last["part"], last["state"])
    if last.get("ok"):
        return
    if "busy_port" in last:
        holder = holder_of(last["busy_port"])
        if is_new:
            down(layout)
        raise StackProblem(
            f"port {last['busy_port']} ({last['part']}) is in use by {holder}: "
            f"stop it, or set FLIP_PORT_BASE to another number than {layout.port_base}"
        )
    part = last.get("part", "supervisor")
    raise StackProblem(f"{part} {last.get('problem', 'went away')}; the end of its log:\n{log_tail(layout, part)}")


def stop(layout: Layout, names: Iterable[str]) -> None:
    """Stop parts and keep them stopped until `up` names them again."""
    _order(layout, {"do": "stop", "names": list(names)})


def restart(layout: Layout, names: Iterable[str]) -> None:
    """Stop parts, start them again, and return when they are ready."""
    names = list(names)
    stop(layout, names)
    up(layout, names)


def kill(layout: Layout, name: str, number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to a part's main process; the supervisor starts the part again as after any crash."""
    _order(layout, {"do": "kill", "names": [name], "signal": number.name})


def status(layout: Layout) -> list[dict[str, Any]]:
    """Each part's name, group, state, pid in the stack's namespace, restarts, seconds in its state, PSS in MiB."""
    return _order(layout, {"do": "status"})["parts"]


def down(layout: Layout, patience_s: float = _WAIT_S) -> None:
    """Stop every part, dependants first; a supervisor that takes longer than `patience_s` is killed.

    Nothing of the stack is left, whatever had become of its supervisor.
    """
    if not is_running(layout):
        return
    try:
        _order(layout, {"do": "down"}, patience_s)
        _wait_until(lambda: not is_running(layout), "the supervisor doesn't end", patience_s)
    except (OSError, StackProblem):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(layout.lock.read_text()), signal.SIGKILL)
        _wait_until(lambda: not is_running(layout), "the supervisor lives on after SIGKILL")


def log_tail(layout: Layout, part: str, lines: int = _LOG_TAIL_LINES) -> str:
    """The last lines that a part has written."""
    try:
        return "\n".join(layout.log(part).read_text(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return "(it has written none)"


def _order(layout: Layout, request: dict[str, Any], patience_s: float | None = None) -> dict[str, Any]:
    if not is_running(layout):
        raise StackProblem("the stack isn't running: start it with `make up`")
    *_, answer = _ask(layout, request, patience_s)
    if not answer["ok"]:
        raise StackProblem(answer["problem"])
    return answer


def _ask(layout: Layout, request: dict[str, Any], patience_s: float | None = None) -> Iterator[dict[str, Any]]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(patience_s)
        # By its folder's descriptor: a path may be longer than a socket's address can be.
        folder = os.open(layout.control.parent, os.O_PATH | os.O_DIRECTORY)
        try:
            connection.connect(f"/proc/self/fd/{folder}/{layout.control.name}")
        finally:
            os.close(folder)
        connection.sendall(json.dumps(request).encode() + b"\n")
        with connection.makefile() as answers:
            for line in answers:
                yield json.loads(line)


def _require_same_ports(layout: Layout) -> None:
    """Refuse to start a stack on other ports than it was made with: Kafka and the nets' kits hold theirs."""
    record = layout.state / "port-base"
    if not record.exists():
        record.write_text(str(layout.port_base))
    elif record.read_text() != str(layout.port_base):
        raise StackProblem(
            f"the stack under {layout.state} was made with FLIP_PORT_BASE={record.read_text()}: "
            f"set that, or FLIP_STATE to another folder, or remove this one"
        )


def _have_supervisor(layout: Layout) -> bool:
    """Start the supervisor unless there is one; whether it was started here."""
    with layout.lock.with_suffix(".launch").open("w") as others:
        fcntl.flock(others, fcntl.LOCK_EX)
        if is_running(layout):
            return False
        _launch(layout)
        return True


def _launch(layout: Layout) -> None:
    """Start the supervisor as process 1 of a pid namespace of its own, detached from this terminal.

    In a user namespace it isn't root, so Postgres runs for a root user too and no part can touch what isn't the
    user's. `--kill-child` ends it with `unshare`; with it, the kernel ends every process of the namespace.
    """
    layout.logs.mkdir(parents=True, exist_ok=True)
    layout.state.chmod(0o700)
    for log in layout.logs.glob("*.log"):
        log.rename(log.with_suffix(".log.1"))
    pki.create(layout)
    user = ("--map-user=1000", "--map-group=1000") if os.geteuid() == 0 else ("--map-current-user",)
    namespace = ("unshare", "--user", *user, "--pid", "--fork", "--kill-child", "--mount-proc", "--")
    # What this shell calls FLIP_... is not meant for the services: each is told its own.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FLIP_")}
    environment = {**inherited, **layout.as_environment}
    with layout.log("supervisor").open("ab") as log:
        launched = subprocess.Popen(
            (*namespace, sys.executable, "-m", "flip_local.supervisor"),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            cwd=layout.state,
            start_new_session=True,
        )
    layout.lock.write_text(str(launched.pid))
    _wait_until(
        lambda: _answers(layout) or launched.poll() is not None, "the supervisor doesn't answer on its control socket"
    )
    if launched.poll() is not None:
        raise StackProblem(f"the supervisor doesn't start:\n{log_tail(layout, 'supervisor')}")
    launched.returncode = 0  # it goes on without this process, which must not warn about that


def _answers(layout: Layout) -> bool:
    if not is_running(layout):
        return False
    try:
        return next(_ask(layout, {"do": "status"}), {}).get("ok", False)
    except OSError:
        return False


def _wait_until(condition: Callable[[], bool], problem: str, limit_s: float = _WAIT_S) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            raise StackProblem(f"{problem} within {limit_s:.0f} s")
        time.sleep(_WAIT_STEP_S)


def _require_room(layout: Layout) -> None:
    layout.state.mkdir(parents=True, exist_ok=True)
    free_gib = shutil.disk_usage(layout.state).free / 2**30
    if free_gib < LEAST_FREE_GIB:
        raise StackProblem(
            f"only {free_gib:.1f} GiB are free under {layout.state}; "
            f"the stack needs {LEAST_FREE_GIB}: free some, or set FLIP_STATE to a folder on a larger disk"
        )
