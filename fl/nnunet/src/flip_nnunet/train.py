"""Training at a site by nnU-Net's own trainer, one federated round at a time."""

from __future__ import annotations

import hashlib
import importlib
import math
import os
import random
import time
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter

from flip_nnunet.contribution import StateSource
from flip_nnunet.job import Job
from flip_nnunet.message import Json, SiteFailed, Weights
from flip_nnunet.payload import Device, trainer_modules
from flip_nnunet.tensors import own_tensors, ties_of

_READ_ALL = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"

_Trainer = Any
"""An `nnUNetTrainer`; its attributes are None until it is initialised, which its types do not say."""


@dataclass(frozen=True, slots=True)
class RoundResult:
    """What a site gives for one round."""

    weights: Weights
    cases: int
    """How many cases it was trained on: all, or those of the fold."""
    metrics: Json
    state: StateSource
    seconds: float


class SiteTraining:
    """One run's nnU-Net trainer at one site, used inside `nnunet_environment`.

    Bit for bit repeatable, in this process or a new one: seeds are set before the network is built and at the start of
    every round, and the trainer's state (optimiser, loss scaling) is kept on disk after every round: that of the last
    two, since the hub may ask again for a round whose answer it never saw.
    """

    def __init__(self, site: str, job: Job, plan: Json, description: Json, states: Path) -> None:
        self._site = site
        self._job = job
        self._states = states
        self._next_round = 0
        self._trainer = _build_trainer(job, plan, description)
        self._cases = len(self._trainer.do_split()[0])
        self._tensors = dict(own_tensors(self._trainer.network.state_dict()))

    def weights(self) -> Weights:
        """The network's tensors that own their storage; the others are other names of these (`ties`)."""
        return {name: tensor.detach().cpu().numpy().copy() for name, tensor in self._tensors.items()}

    def ties(self) -> dict[str, str]:
        """For every name in nnU-Net's checkpoint, the name of the tensor in `weights` that it is."""
        return ties_of(self._trainer.network.state_dict())

    def mirroring_axes(self) -> list[int] | None:
        axes = self._trainer.inference_allowed_mirroring_axes
        return None if axes is None else [int(axis) for axis in axes]

    @property
    def next_round(self) -> int:
        """The round that this trainer can go on with from memory; 0 before the first."""
        return self._next_round

    def run_round(self, number: int, weights: Weights) -> RoundResult:
        """Train round `number` from the global `weights`; the learning rate is that of the whole training's schedule.

        Raises ValueError if this trainer has trained another round than the one before.
        """
        started = time.monotonic()
        source = self._restore_state_before(number)
        self._load(weights)
        _seed(self._job.seed, self._site, number, "train")
        epochs = self._job.payload.epochs_per_round
        self._trainer.current_epoch = number * epochs
        for _ in range(epochs):
            _run_epoch(self._trainer)
        self._save_state_after(number)
        return RoundResult(self.weights(), self._cases, _metrics(self._trainer), source, time.monotonic() - started)

    def close(self) -> None:
        """End the processes that load batches, if there are any."""
        for loader in (self._trainer.dataloader_train, self._trainer.dataloader_val):
            if isinstance(loader, NonDetMultiThreadedAugmenter):
                loader._finish()

    def _load(self, weights: Weights) -> None:
        if weights.keys() != self._tensors.keys():
            raise SiteFailed("weights-do-not-fit", "the tensors' names are not those of the planned network")
        with torch.no_grad():
            for name, tensor in self._tensors.items():
                if tuple(tensor.shape) != weights[name].shape:
                    raise SiteFailed("weights-do-not-fit", f"{name} has another shape in the planned network")
                tensor.copy_(torch.from_numpy(weights[name].copy()))

    def _restore_state_before(self, number: int) -> StateSource:
        if number == self._next_round:
            return "memory" if number else "none"
        if self._next_round:
            raise ValueError(f"round {number} asked of a trainer that goes on with round {self._next_round}")
        saved = self._state_file(number - 1)
        if saved.is_file():
            _load_own_checkpoint(self._trainer, saved)
            return "disk"
        _skip_epochs(self._trainer, number * self._job.payload.epochs_per_round)
        return "lost"

    def _save_state_after(self, number: int) -> None:
        self._states.mkdir(parents=True, exist_ok=True)
        unfinished = self._states / "unfinished"
        self._trainer.save_checkpoint(str(unfinished))
        unfinished.replace(self._state_file(number))
        for old in sorted(self._states.glob("round_*.pth")):
            if old not in (self._state_file(number), self._state_file(number - 1)):
                old.unlink()
        self._next_round = number + 1

    def _state_file(self, number: int) -> Path:
        return self._states / f"round_{number:05d}.pth"


def _build_trainer(job: Job, plan: Json, description: Json) -> _Trainer:
    payload, profile = job.payload, job.profile
    _be_deterministic(payload.device, profile.threads)
    module = importlib.import_module(trainer_modules()[payload.trainer_name])
    trainer: _Trainer = getattr(module, payload.trainer_name)(
        plans={**deepcopy(plan), "continue_training": False},
        configuration=payload.model_configuration,
        fold=payload.fold_id,
        dataset_json=description,
        device=torch.device(payload.device),
    )
    trainer.num_epochs = payload.total_epochs
    if profile.iterations_per_epoch is not None:
        trainer.num_iterations_per_epoch = profile.iterations_per_epoch
    if profile.validation_iterations is not None:
        trainer.num_val_iterations_per_epoch = profile.validation_iterations
    if profile.initial_lr is not None:
        trainer.initial_lr = profile.initial_lr
    _sort_split(trainer)
    _seed(job.seed, "hub", 0, "init")
    trainer.initialize()
    trainer.on_train_start()
    return trainer


def _sort_split(trainer: _Trainer) -> None:
    """Cases in the order of their names: nnU-Net takes them as the file system lists them, and draws by position."""
    split = trainer.do_split

    def sorted_split() -> tuple[list[str], list[str]]:
        training, validation = split()
        return sorted(training), sorted(validation)

    trainer.do_split = sorted_split


def _run_epoch(trainer: _Trainer) -> None:
    """One epoch as `nnUNetTrainer.run_training` runs it, without its checkpoints and its plot."""
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    trainer.on_train_epoch_end(
        [trainer.train_step(next(trainer.dataloader_train)) for _ in range(trainer.num_iterations_per_epoch)]
    )
    with torch.no_grad():
        trainer.on_validation_epoch_start()
        trainer.on_validation_epoch_end(
            [trainer.validation_step(next(trainer.dataloader_val)) for _ in range(trainer.num_val_iterations_per_epoch)]
        )
    trainer.logger.log("epoch_end_timestamps", time.time(), trainer.current_epoch)
    trainer.current_epoch += 1


def _metrics(trainer: _Trainer) -> Json:
    """Of the last epoch, None for what is no number. Dice is nnU-Net's pseudo Dice, on random patches."""
    last = trainer.logger.get_value
    return {
        "train_loss": _or_none(last("train_losses", -1)),
        "validation_loss": _or_none(last("val_losses", -1)),
        "dice": _or_none(last("mean_fg_dice", -1)),
        "dice_per_class": [_or_none(dice) for dice in last("dice_per_class_or_region", -1)],
        "learning_rate": float(last("lrs", -1)),
    }


def _or_none(number: float) -> float | None:
    return float(number) if math.isfinite(number) else None


def _load_own_checkpoint(trainer: _Trainer, saved: Path) -> None:
    """Load what this trainer saved. Those that warm up leave it to torch's default whether more than tensors is read,
    and it must be, as nnU-Net's others do."""
    before = os.environ.get(_READ_ALL)
    os.environ[_READ_ALL] = "1"
    try:
        trainer.load_checkpoint(str(saved))
    finally:
        if before is None:
            del os.environ[_READ_ALL]
        else:
            os.environ[_READ_ALL] = before


def _skip_epochs(trainer: _Trainer, epochs: int) -> None:
    """Go on after epochs that this trainer has not seen: fill nnU-Net's log, which wants an entry for each, and leave
    the warm-up that was over by then, which nnU-Net does in the very epoch that ends it."""
    for entries in trainer.logger.get_checkpoint().values():
        entries.extend([float("nan")] * (epochs - len(entries)))
    if epochs > getattr(trainer, "warmup_duration_whole_net", epochs):
        trainer.optimizer, trainer.lr_scheduler = trainer.configure_optimizers("train")


def check_device(device: Device) -> None:
    """Raises `SiteFailed` if this machine has no such device."""
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available[device]:
        raise SiteFailed("device-missing", f"this site has no {device} device")


def _be_deterministic(device: Device, threads: int | None) -> None:
    if threads is not None:
        torch.set_num_threads(threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # CUDA has no deterministic form of some layers' gradients; there the nearest thing is asked for.
    torch.use_deterministic_algorithms(True, warn_only=device != "cpu")
    torch.backends.cudnn.benchmark = False


def _seed(run_seed: int, site: str, number: int, purpose: str) -> None:
    """Seed the three generators that nnU-Net's loader, augmentation and initialisation draw from."""
    text = f"{run_seed}|{site}|{number}|{purpose}"
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
