"""Keeps one process of a framework in the foreground and lets nothing of it outlive the keeper.

A framework starts a process a run and a process a trainer, each a session of its own; when their parent is killed they
go on. The keeper adopts such orphans (it is a child subreaper) and ends them with the process it keeps. If the keeper
itself is killed, the kernel kills the kept process, and the next keeper of the same kit ends whatever else is left:
every process of a kit carries the kit's path in its environment.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

KIT_VARIABLE = "FLIP_KEPT_KIT"

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_WATCHED = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}
_SWEEP_TIMEOUT_S = 30.0
_LIBC = ctypes.CDLL(None, use_errno=True)


def keep(command: Sequence[str], kit: Path, environment: Mapping[str, str]) -> int:
    """Run `command` with `environment` added to the keeper's own, until it ends or a SIGTERM or SIGINT
    comes; returns its exit status, or 128 + its signal.

    No process of `kit` is left when this returns. Call it from the main thread of a process that does nothing else.
    """
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    end_processes_of(kit)
    signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    keeper = os.getpid()
    process = subprocess.Popen(  # noqa: S603 - the command is this package's own
        command,
        cwd=kit,
        env=os.environ | environment | {KIT_VARIABLE: str(kit), "MALLOC_ARENA_MAX": "2"},
        start_new_session=True,
        preexec_fn=lambda: _die_with(keeper),  # noqa: PLW1509 - the keeper has one thread
    )
    status = _wait(process)
    _end_descendants(process)
    end_processes_of(kit)
    return status


def end_processes_of(kit: Path) -> None:
    """Kill every process of `kit`. Raises TimeoutError if one cannot be killed."""
    deadline = time.monotonic() + _SWEEP_TIMEOUT_S
    while left := processes_of(kit):
        for process in left:
            _kill(process)
        psutil.wait_procs(left, timeout=1)
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {[process.pid for process in left]} of {kit} do not end")


def processes_of(kit: Path) -> list[psutil.Process]:
    """The living processes that a keeper of `kit` started, at any depth."""
    return [process for process in psutil.process_iter() if _belongs_to(process, kit)]


def _end_descendants(kept: subprocess.Popen[bytes]) -> None:
    """Kill what the kept process left: a subreaper's family tree misses nothing, not even a process just being started.

    The environment, by which `end_processes_of` looks, cannot be read while a process starts another program.
    """
    keeper = psutil.Process()
    deadline = time.monotonic() + _SWEEP_TIMEOUT_S
    while left := keeper.children(recursive=True):
        for process in left:
            _kill(process)
        psutil.wait_procs(left, timeout=0.2)
        _reap(kept)
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {[process.pid for process in left]} do not end")


def _belongs_to(process: psutil.Process, kit: Path) -> bool:
    try:
        return process.environ().get(KIT_VARIABLE) == str(kit) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:  # ended meanwhile, or of another user and so not a keeper's
        return False


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return


def _wait(process: subprocess.Popen[bytes]) -> int:
    while process.returncode is None:
        if signal.sigwait(_WATCHED) != signal.SIGCHLD:
            process.kill()  # what must last is on disk
        _reap(process)
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def _reap(kept: subprocess.Popen[bytes]) -> None:
    """Collect all ended children: the kept one and adopted orphans."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        if pid == kept.pid:
            kept.returncode = os.waitstatus_to_exitcode(status)


def _die_with(keeper: int) -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != keeper:
        os._exit(1)


def _prctl(option: int, value: int) -> None:
    if _LIBC.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
