"""Training at a site by nnU-Net's own trainer, one federated round at a time."""

from __future__ import annotations

import hashlib
import importlib
import math
import os
import random
import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from flip_nnunet.job import Job
from flip_nnunet.message import Json, SiteFailed, Weights
from flip_nnunet.payload import trainer_modules

StateSource = Literal["none", "memory", "disk", "lost"]
"""Where the optimiser's state before a round came from. `none`: it is the first round. `lost`: it starts anew."""

_KEPT_STATES = 2
"""The last two: the hub may ask for a round again whose answer it never saw."""


@dataclass(frozen=True, slots=True)
class RoundResult:
    """What a site gives for one round."""

    weights: Weights
    metrics: Json
    state: StateSource
    seconds: float


class SiteTraining:
    """One run's nnU-Net trainer at one site, used inside `nnunet_environment`.

    Bit for bit repeatable, in this process or a new one: seeds are set before the network is built and at the start of
    every round, and the trainer's state (optimiser, loss scaling) is kept on disk after every round.
    """

    def __init__(self, site: str, job: Job, plan: Json, description: Json, states: Path) -> None:
        self._site = site
        self._job = job
        self._states = states
        self._finished: int | None = None
        self._trainer = _build_trainer(job, plan, description)
        self._tensors = dict(_own_tensors(self._trainer.network))

    def weights(self) -> Weights:
        """The network's tensors that own their storage; the others are other names of these (`ties`)."""
        return {name: tensor.detach().cpu().numpy().copy() for name, tensor in self._tensors.items()}

    def ties(self) -> dict[str, str]:
        """For every name in nnU-Net's checkpoint, the name of the tensor in `weights` that it is."""
        owners = {_storage(tensor): name for name, tensor in self._tensors.items()}
        return {name: owners[_storage(tensor)] for name, tensor in self._trainer.network.state_dict().items()}

    def mirroring_axes(self) -> list[int] | None:
        axes = self._trainer.inference_allowed_mirroring_axes
        return None if axes is None else [int(axis) for axis in axes]

    def run_round(self, number: int, weights: Weights) -> RoundResult:
        """Train round `number` from the global `weights`; the learning rate is that of the whole training's schedule."""
        started = time.monotonic()
        source = self._restore_state_before(number)
        self._load(weights)
        _seed(_seed_of(self._job.seed, self._site, number, "train"))
        trainer, epochs = self._trainer, self._job.payload.epochs_per_round
        trainer.current_epoch = number * epochs
        for _ in range(epochs):
            _run_epoch(trainer)
        self._save_state_after(number)
        return RoundResult(self.weights(), _metrics(trainer), source, time.monotonic() - started)

    def _load(self, weights: Weights) -> None:
        if weights.keys() != self._tensors.keys():
            raise SiteFailed("weights-do-not-fit", "the names of the tensors are not those of the planned network")
        with torch.no_grad():
            for name, tensor in self._tensors.items():
                if tuple(tensor.shape) != weights[name].shape:
                    raise SiteFailed("weights-do-not-fit", f"{name} has another shape in the planned network")
                tensor.copy_(torch.from_numpy(weights[name].copy()))

    def _restore_state_before(self, number: int) -> StateSource:
        if number == 0:
            if self._finished is not None:  # the same process is asked to begin again
                raise SiteFailed("round-out-of-order", "round 0 asked of a trainer that has already trained")
            return "none"
        if self._finished == number - 1:
            return "memory"
        saved = self._state_file(number - 1)
        if saved.is_file():
            self._trainer.load_checkpoint(str(saved))
            return "disk"
        _forget(self._trainer, number * self._job.payload.epochs_per_round)
        return "lost"

    def _save_state_after(self, number: int) -> None:
        self._states.mkdir(parents=True, exist_ok=True)
        unfinished = self._states / "unfinished"
        self._trainer.save_checkpoint(str(unfinished))
        unfinished.replace(self._state_file(number))
        for old in sorted(self._states.glob("round_*.pth"))[:-_KEPT_STATES]:
            old.unlink()
        self._finished = number

    def _state_file(self, number: int) -> Path:
        return self._states / f"round_{number:05d}.pth"
