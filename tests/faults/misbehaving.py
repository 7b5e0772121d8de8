"""Makes the trainer of one Trust answer rounds wrongly, in an environment of its own (`stage.trainers`).

Python imports it when it starts. The file `misbehaves.json` of the environment says which Trust, and how; without it
nothing is changed. It imports nothing of the platform's until a trainer does.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import json
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

_WORKER = "flip_nnunet.worker"


def file_of(environment: Path) -> Path:
    """Where it is said which Trust misbehaves, and how."""
    return environment / "misbehaves.json"


class Misbehaving(importlib.abc.MetaPathFinder):
    """Lets a trainer's module be imported as it is, then changes how it answers."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != _WORKER:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def run_and_change(module: ModuleType) -> None:
                run(module)
                _change(module)

            spec.loader.exec_module = run_and_change
        return spec


def _change(module: ModuleType) -> None:
    worker: Any = module.__dict__["Worker"]
    train_round = worker.train_round

    def answer(self: Any, message: Any) -> Any:
        said = file_of(Path(sys.prefix))
        how = json.loads(said.read_text()).get(self._site) if said.exists() else None
        return train_round(self, message) if how is None else _ANSWERS[how](lambda: train_round(self, message))

    worker.train_round = answer


Train = Callable[[], Any]


def _nan(train: Train) -> Any:
    answer = train()
    for name, array in answer.arrays.items():
        if array.dtype.kind == "f":
            answer.arrays[name] = array * array.dtype.type("nan")
    return answer


def _other_plan(train: Train) -> Any:
    answer = train()
    answer.meta["plan"] = "0" * 64
    return answer


def _other_shape(train: Train) -> Any:
    answer = train()
    name = next(iter(answer.arrays))
    answer.arrays[name] = answer.arrays[name].ravel()[:-1].copy()
    return answer


def _stale_round(train: Train) -> Any:
    answer = train()
    answer.meta["round"] -= 1
    return answer


def _nothing(_: Train) -> Any:
    threading.Event().wait()


_ANSWERS = {
    "nan": _nan,
    "other-plan": _other_plan,
    "other-shape": _other_shape,
    "stale-round": _stale_round,
    "nothing": _nothing,
}
sys.meta_path.insert(0, Misbehaving())
