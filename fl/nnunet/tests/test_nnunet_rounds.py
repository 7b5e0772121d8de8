"""What the docs say about a downloaded round is true of the files that a run writes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from flip_nnunet.export import Checkpoint, TrainedModel, export
from flip_nnunet.job import Job
from flip_nnunet.payload import ComputeProfile, TrainingPayload
from flip_nnunet.store import FolderStore

DOCS = Path(__file__).parents[3] / "docs" / "train-nnunet.md"
PAYLOAD = {"mode": "training", "num_rounds": 9, "dataset_id": 7, "model_configuration": "2d", "device": "cpu"}
TIES = {"decoder.conv": "decoder.conv", "decoder.layers.0": "decoder.conv", "seg": "seg"}
"""One tensor has two names, as most of nnU-Net's have."""


@pytest.mark.requirement("RUN-9")
def test_a_round_laid_into_a_checkpoint_as_the_docs_show_changes_every_name_of_each_tensor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    final = {"decoder.conv": np.zeros((2, 3), np.float32), "seg": np.zeros(4, np.float32)}
    earlier = {"decoder.conv": np.full((2, 3), 7, np.float32), "seg": np.full(4, 8, np.float32)}
    job = Job(
        run_id="r",
        profile=ComputeProfile(name="full", processes=1),
        dataset_name="Dataset007_FLIP",
        payload=TrainingPayload.model_validate(PAYLOAD),
        seed=1,
    )
    model = TrainedModel({}, {}, {}, Checkpoint(8, final), None, TIES, None)
    export(model, job, {}, tmp_path / "results")
    folder = tmp_path / "results" / "Dataset007_FLIP" / "nnUNetTrainer__nnUNetPlans__2d"
    FolderStore(tmp_path / "hub").save_round(7, earlier)
    (tmp_path / "hub" / "rounds" / "round_00007.npz").rename(folder / "round-00007_<run>.npz")

    monkeypatch.chdir(folder)
    [shown] = re.findall(r"```python\n(.*?round-00007.*?)```", DOCS.read_text(), re.DOTALL)
    exec(shown, {})

    laid = torch.load("fold_all/checkpoint_round_7.pth", weights_only=False)["network_weights"]
    assert laid.keys() == TIES.keys()
    for name, owner in TIES.items():
        assert np.array_equal(laid[name].numpy(), earlier[owner]), name
