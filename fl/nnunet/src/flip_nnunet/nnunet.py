"""How nnU-Net is called inside a site: its folders, its quiet, its processes."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

_Result = TypeVar("_Result")


@contextlib.contextmanager
def nnunet_environment(
    raw: Path, preprocessed: Path, results: Path, augmentation_processes: int | None
) -> Iterator[None]:
    """Point nnU-Net at these folders and keep it from printing; both as before afterwards.

    nnU-Net reads its folders and `nnUNet_n_proc_DA` from the environment when it needs them, so one process can serve
    several runs. Planning sets its torch threads to `nnUNet_n_proc_DA`, which must not be 0 there. Compiling is off:
    a compiled network has other tensor names.
    """
    changes = {
        "nnUNet_raw": str(raw),
        "nnUNet_preprocessed": str(preprocessed),
        "nnUNet_results": str(results),
        "nnUNet_compile": "f",
        "nnUNet_def_n_proc": "1",
    }
    if augmentation_processes is not None:
        changes["nnUNet_n_proc_DA"] = str(augmentation_processes)
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for name, old in before.items():
            if old is None:
                del os.environ[name]
            else:
                os.environ[name] = old


def in_processes(
    function: Callable[..., _Result], calls: Sequence[tuple[Any, ...]], processes: int
) -> Iterator[_Result]:
    """The results of the calls, in their order, by up to `processes` spawned processes, or by this one alone.

    Never more of them than processors this process may use, nor than calls.
    """
    workers = min(processes, len(os.sched_getaffinity(0)), len(calls))
    if workers <= 1:
        yield from (function(*call) for call in calls)
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(function, *zip(*calls, strict=True))
