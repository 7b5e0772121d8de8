"""A site's side of a federated prediction: each operation takes a message and answers with one."""

from __future__ import annotations

import importlib
import json
import math
import re
import shutil
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.evaluation.evaluate_predictions import compute_metrics
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from flip_nnunet.archive import zip_files
from flip_nnunet.dataset import schema_of
from flip_nnunet.files import file_digest, replace_json
from flip_nnunet.images import Images
from flip_nnunet.job import InferenceJob
from flip_nnunet.message import Json, Message, SiteFailed
from flip_nnunet.model import Model, ModelUnfit, foreground
from flip_nnunet.nnunet import nnunet_environment
from flip_nnunet.operations import Operations
from flip_nnunet.payload import trainer_modules
from flip_nnunet.site_settings import Predictions
from flip_nnunet.software import versions
from flip_nnunet.train import check_device

LARGEST_PART = 1 << 24
"""Bytes of an archive that one answer holds at most."""
_ARCHITECTURE = re.compile(r"dynamic_network_architectures\.architectures\.\w+\.\w+")
_PART = re.compile(r"torch\.nn\.(modules\.\w+\.)?\w+|dynamic_network_architectures\.building_blocks\.\w+\.\w+")
"""What a plan's network may be, and be made of."""


@dataclass(frozen=True, slots=True)
class _Ready:
    """A model that can predict, and its `dataset.json`."""

    nnunet: nnUNetPredictor
    description: Json


class Predictor(Operations):
    """One site in one prediction. What was predicted lies on disk, and a later attempt goes on from it.

    data: the folder that holds `nnUNet_raw/DatasetXYZ_name`; it is only read.
    work: the site's folder; masks lie in `runs/<run_id>/predictions/` (the caller's to delete).
    minimum_cases: the site's disclosure threshold; it predicts no data set with fewer, and tells no mean over fewer.
    predictions: whether masks may leave the site.
    models: where the models lie that a path may name.
    """

    def __init__(
        self,
        data: Path,
        work: Path,
        job: InferenceJob,
        minimum_cases: int,
        predictions: Predictions,
        models: Path | None,
    ) -> None:
        self._run = work / "runs" / job.run_id
        super().__init__(
            {
                "describe": self.describe,
                "load": self.load,
                "predict": self.predict,
                "collect": self.collect,
                "stop": self.stop,
            },
            self._run,
        )
        self._raw = data / "nnUNet_raw"
        self._job = job
        self._minimum_cases = minimum_cases
        self._predictions = predictions
        self._models = models
        self._ready: _Ready | None = None

    def describe(self, _: Message) -> Message:
        """Which of the data sets are here. -> meta datasets {id: {cases, data (a digest)}}, predictions, versions."""
        found = {dataset: self._find(dataset) for dataset in self._job.payload.dataset_subdirs}
        datasets = {
            dataset: {"cases": len(images.cases), "data": images.digest()}
            for dataset, images in found.items()
            if images is not None
        }
        if not datasets:
            raise SiteFailed("dataset-missing", "dataset_subdirs: the site has none of these data sets")
        return Message({"datasets": datasets, "predictions": self._predictions, "versions": versions()})

    def load(self, message: Message) -> Message:
        """Make the model ready: that in the message or, without one, the site's own. -> meta model: what it is."""
        check_device(self._job.payload.device)
        try:
            model = Model.from_message(message) if "model" in message.meta else self._own_model()
            with self._nnunet():
                self._ready = self._make_ready(model)
        except ModelUnfit as unfit:
            raise SiteFailed(unfit.code, unfit.detail) from unfit
        for dataset in self._job.payload.dataset_subdirs:
            images = self._find(dataset)
            if images is not None:
                _check_schema(dataset, images, model.identity.description)
        facts = model.facts()
        self._drop_masks_of_another(facts)
        return Message({"model": facts})

    def predict(self, message: Message) -> Message:
        """Predict a data set (meta dataset), or find it predicted. -> meta cases, seconds, scores, archive.

        `archive` has the bytes and the SHA-256 of the zipped masks, or is None where they stay.
        """
        started = time.monotonic()
        dataset = str(message.meta["dataset"])
        images, ready = self._needed(dataset), self._loaded()
        masks = self._masks(dataset)
        masks.mkdir(parents=True, exist_ok=True)
        ending = images.schema["file_ending"]
        with self._nnunet():
            for case, files in images.cases.items():
                if not (masks / f"{case}{ending}").is_file():
                    _predict_case(ready.nnunet, files, masks, case, ending)
        scores = self._scores(images, masks, ready.description)
        archive = self._zip(dataset, images) if self._predictions == "masks" else None
        seconds = round(time.monotonic() - started, 3)
        return Message({"cases": len(images.cases), "seconds": seconds, "scores": scores, "archive": archive})

    def collect(self, message: Message) -> Message:
        """A part of a data set's zipped masks (meta dataset, offset, bytes) -> array part (bytes as uint8)."""
        if self._predictions != "masks":
            raise SiteFailed("masks-stay", "the site gives no masks")
        offset, most = int(message.meta["offset"]), min(int(message.meta["bytes"]), LARGEST_PART)
        if offset < 0 or most < 1:
            raise SiteFailed("request-malformed", "offset and bytes: must name a part of the archive")
        archive = self._archive(str(message.meta["dataset"]))
        if not archive.is_file():
            raise SiteFailed("operation-out-of-order", "the data set has not been predicted here")
        with archive.open("rb") as stream:
            stream.seek(offset)
            return Message(arrays={"part": np.frombuffer(stream.read(most), np.uint8)})

    def stop(self, _: Message) -> Message:
        """Let go of the network. What is on disk stays."""
        self._ready = None
        return Message()

    def _nnunet(self) -> AbstractContextManager[None]:
        return nnunet_environment(self._raw, self._run / "preprocessed", self._run / "results", None)

    # --- the model -------------------------------------------------------------------------------------------------

    def _own_model(self) -> Model:
        """The model that lies at this site."""
        if self._models is None:
            raise ModelUnfit("models-not-offered", "checkpoint_path: the site has no folder of models")
        folder = (self._models / self._job.payload.checkpoint_path).resolve()
        if not folder.is_relative_to(self._models.resolve()):
            raise ModelUnfit("path-leads-out", "checkpoint_path: leads out of the site's folder of models")
        if not folder.is_dir():
            raise ModelUnfit("model-missing", "checkpoint_path: the site has no such model")
        return Model.read(folder, self._job.payload)

    def _make_ready(self, model: Model) -> _Ready:
        """nnU-Net's predictor with the settings of a plain `nnUNetv2_predict`."""
        if self._job.profile.threads is not None:
            torch.set_num_threads(self._job.profile.threads)
        device = torch.device(self._job.payload.device)
        identity = model.identity
        plans, configuration = _planned(model)
        network = _network(model, plans, configuration)
        nnunet = nnUNetPredictor(
            tile_step_size=0.5,
            use_gaussian=True,
            use_mirroring=True,
            perform_everything_on_device=device.type == "cuda",
            device=device,
            allow_tqdm=False,
        )
        nnunet.manual_initialization(
            network,
            plans,
            configuration,
            [network.state_dict()],
            identity.description,
            identity.trainer,
            None if identity.mirroring_axes is None else tuple(identity.mirroring_axes),
        )
        return _Ready(nnunet, identity.description)

    def _drop_masks_of_another(self, facts: Json) -> None:
        """What an earlier attempt predicted with another model is predicted anew."""
        record = self._run / "model.json"
        if not (record.is_file() and json.loads(record.read_text("utf-8")) == facts):
            shutil.rmtree(self._run / "predictions", ignore_errors=True)
            record.parent.mkdir(parents=True, exist_ok=True)
            replace_json(record, facts)

    def _loaded(self) -> _Ready:
        if self._ready is None:
            raise SiteFailed("operation-out-of-order", "no model has been loaded here")
        return self._ready

    # --- data and masks --------------------------------------------------------------------------------------------

    def _find(self, dataset: str) -> Images | None:
        images = Images.find(self._raw, dataset, self._job.payload.dataset_subdirs[dataset])
        if images is not None and len(images.cases) < self._minimum_cases:
            raise SiteFailed("too-few-cases", f"the site takes part with {self._minimum_cases} cases or more")
        return images

    def _needed(self, dataset: str) -> Images:
        images = self._find(dataset) if dataset in self._job.payload.dataset_subdirs else None
        if images is None:
            raise SiteFailed("dataset-missing", "the site has no such data set")
        return images

    def _masks(self, dataset: str) -> Path:
        return self._run / "predictions" / dataset

    def _archive(self, dataset: str) -> Path:
        return self._run / "predictions" / f"{dataset}.zip"

    def _zip(self, dataset: str, images: Images) -> Json:
        archive, masks = self._archive(dataset), self._masks(dataset)
        unfinished = archive.with_suffix(".unfinished")
        zip_files(unfinished, masks, [masks / f"{case}{images.schema['file_ending']}" for case in images.cases])
        unfinished.replace(archive)
        size = archive.stat().st_size
        if size > self._job.largest_archive_bytes:
            raise SiteFailed("archive-too-large", f"largest_archive_bytes: the masks take {size} bytes")
        return {"bytes": size, "sha256": file_digest(archive)}

    def _scores(self, images: Images, masks: Path, description: Json) -> Json | None:
        """Means of Dice over the labelled cases, a structure each; nothing that rests on fewer cases than may be."""
        if len(images.labels) < self._minimum_cases:
            return None
        structures = foreground(description)
        ignored = description["labels"].get("ignore")
        ending = images.schema["file_ending"]
        reader = determine_reader_writer_from_dataset_json(description, verbose=False)()
        found: dict[str, list[float]] = {name: [] for name in structures}
        for case, label in images.labels.items():
            measured = compute_metrics(
                str(label),
                str(masks / f"{case}{ending}"),
                reader,
                list(structures.values()),
                ignored,  # pyright: ignore[reportArgumentType]
            )["metrics"]
            for name, structure in structures.items():
                dice = float(measured[structure]["Dice"])
                if not math.isnan(dice):  # the structure is neither in the label nor in the mask
                    found[name].append(dice)
        return {
            "cases": len(images.labels),
            "dice": {name: self._mean(dices) for name, dices in found.items()},
        }

    def _mean(self, dices: list[float]) -> Json | None:
        if len(dices) < self._minimum_cases:
            return None
        return {"cases": len(dices), "mean": math.fsum(dices) / len(dices)}


def _planned(model: Model) -> tuple[PlansManager, ConfigurationManager]:
    """nnU-Net's view of the model's plan. Raises `ModelUnfit` for a cascade, and for a network of foreign parts.

    nnU-Net imports whatever its plan names, and the plan may have come from the hub.
    """
    plans = PlansManager(model.identity.plan)
    configuration = plans.get_configuration(model.identity.configuration)
    if configuration.previous_stage_name is not None:
        raise ModelUnfit("model-is-cascade", "checkpoint_path: a cascade needs predictions of an earlier stage")
    arguments = configuration.network_arch_init_kwargs
    parts = [arguments[name] for name in configuration.network_arch_init_kwargs_req_import]
    if not _ARCHITECTURE.fullmatch(configuration.network_arch_class_name) or not all(
        part is None or _PART.fullmatch(str(part)) for part in parts
    ):
        raise ModelUnfit("architecture-unknown", "checkpoint_path: its plan names a network that is none of nnU-Net's")
    return plans, configuration


def _network(model: Model, plans: PlansManager, configuration: ConfigurationManager) -> torch.nn.Module:
    """The network with its weights, built as the trainer that trained it builds it. Raises `ModelUnfit`."""
    identity = model.identity
    if identity.trainer not in trainer_modules():
        raise ModelUnfit("trainer-unknown", "checkpoint_path: its trainer is none of nnU-Net's")
    trainer: Any = getattr(importlib.import_module(trainer_modules()[identity.trainer]), identity.trainer)
    network: torch.nn.Module = trainer.build_network_architecture(
        plans,
        configuration,
        determine_num_input_channels(plans, configuration, identity.description),
        plans.get_label_manager(identity.description).num_segmentation_heads,
        enable_deep_supervision=False,
    )
    try:
        network.load_state_dict(
            {name: torch.from_numpy(model.weights[owner].copy()) for name, owner in identity.ties.items()}
        )
    except (RuntimeError, KeyError) as error:
        raise ModelUnfit("model-unreadable", "checkpoint_path: its tensors are not those of its plan") from error
    return network


def _predict_case(nnunet: nnUNetPredictor, images: tuple[Path, ...], masks: Path, case: str, ending: str) -> None:
    """Predict one case; its mask is there whole or not at all."""
    unfinished = masks / ".unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    nnunet.predict_from_files_sequential([[str(image) for image in images]], [str(unfinished / case)])
    (unfinished / f"{case}{ending}").replace(masks / f"{case}{ending}")
    shutil.rmtree(unfinished)


def _check_schema(dataset: str, images: Images, model: Json) -> None:
    """The data must be what the model was trained for: the labels too, where there are any to compare with."""
    trained_for = schema_of(model)
    keys = ("channel_names", "file_ending", *(("labels",) if images.labels else ()))
    other = [key for key in keys if json.dumps(images.schema[key]) != json.dumps(trained_for[key])]
    if other:
        raise SiteFailed("schema-differs", f"dataset_subdirs.{dataset}: has other {', '.join(other)} than the model")
