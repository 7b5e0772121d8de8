"""Federated nnU-Net over a real net by mTLS: the same weights as without one, through kills and aborts.

The tests go in order and share one net, as a long-lived net takes one run after the other.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from flip_flare.testing import TRUSTS, LocalNet, wait_until
from flip_nnunet.federation import federate
from flip_nnunet.inference import infer
from flip_nnunet.job import InferenceJob, Job
from flip_nnunet.keeper import processes_of
from flip_nnunet.message import Answers, Message
from flip_nnunet.operations import Operations
from flip_nnunet.predict import Predictor
from flip_nnunet.seal import check
from flip_nnunet.store import FolderStore
from flip_nnunet.worker import Worker

pytestmark = pytest.mark.parts

CASES = 4
SIZE = (24, 32, 32)
GONE_AFTER_ABORT_S = 15.0


def job_of(run_id: str, *, first_round: int = 0, iterations: int = 2) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "dataset_name": "Dataset001_FLIP",
        "seed": 7,
        "payload": {
            "mode": "training",
            "num_rounds": 2,
            "dataset_id": 1,
            "model_configuration": "2d",
            "device": "cpu",
            "starting_fed_round": first_round,
        },
        "profile": {
            "name": "test",
            "base_features": 4,
            "max_features": 8,
            "max_batch_size": 2,
            "iterations_per_epoch": iterations,
            "validation_iterations": 1,
            "threads": 1,
            "augmentation_processes": 0,
            "intensity_voxels": 100_000,
        },
    }


def prediction_of(run_id: str) -> dict[str, Any]:
    """A prediction with the model of the run `whole`."""
    payload = {"mode": "inference", "checkpoint_path": "run:whole", "dataset_subdirs": {"1": "imagesTr"}}
    return {"run_id": run_id, "payload": {**payload, "device": "cpu"}, "profile": job_of(run_id)["profile"]}


def write_dataset(runs: Path, site: str, run_id: str) -> Path:
    """Two bright boxes in noise, other ones in each case; what the platform's worker would have prepared."""
    folder = runs / run_id / "nnUNet_raw" / "Dataset001_FLIP"
    (folder / "imagesTr").mkdir(parents=True)
    (folder / "labelsTr").mkdir()
    random = np.random.default_rng(TRUSTS.index(site))
    for case in range(CASES):
        image = random.normal(100, 10, SIZE)
        label = np.zeros(SIZE, np.uint8)
        for value in (1, 2):
            z, y, x = random.integers(2, [SIZE[0] - 10, SIZE[1] - 12, SIZE[2] - 12])
            label[z : z + 8, y : y + 10, x : x + 10] = value
        image += 80 * label
        write_image(folder / "imagesTr" / f"{site}_{case:03d}_0000.nii.gz", np.round(image).astype(np.int16))
        write_image(folder / "labelsTr" / f"{site}_{case:03d}.nii.gz", label)
    description = {
        "channel_names": {"0": "MR"},
        "labels": {"background": 0, "one": 1, "two": 2},
        "numTraining": CASES,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    (runs / run_id / "prepared.json").write_text(json.dumps({"project_id": "project"}))
    return runs / run_id


def write_image(path: Path, voxels: np.ndarray[Any, Any]) -> None:
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(voxels), path)


def prepare(net: LocalNet, run_id: str) -> None:
    for site in TRUSTS:
        write_dataset(net.runs / site, site, run_id)


def ending(net: LocalNet, run_id: str) -> dict[str, Any]:
    return net.events(run_id)[-1]


class LocalSites:
    """The same workers without a net, one after the other in this process: the reference."""

    def __init__(self, workers: Mapping[str, Operations]) -> None:
        self._workers = workers

    def names(self) -> list[str]:
        return list(self._workers)

    def ask(self, operation: str, message: Message, sites: Sequence[str] | None = None) -> Answers:
        for site in self.names() if sites is None else sites:
            yield site, self._workers[site].handle(operation, message)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What two rounds give with no FLARE in between."""
    folder = tmp_path_factory.mktemp("reference")
    job = Job.model_validate(job_of("r"))
    workers = {site: Worker(site, write_dataset(folder / site, site, "r"), folder / site, job, 1) for site in TRUSTS}
    outcome = federate(LocalSites(workers), job, FolderStore(folder), lambda _: None)
    return {"plan_digest": outcome.plan_digest, "weights_digest": outcome.weights_digest, "cases": outcome.cases}


def assert_finished_as(net: LocalNet, run_id: str, reference: dict[str, Any]) -> None:
    last = ending(net, run_id)
    assert last["kind"] == "finished", last
    assert {key: last[key] for key in reference} == reference
    assert Path(last["archive"]).is_file()


@pytest.mark.requirement("NNU-2")
@pytest.mark.requirement("NNU-4")
@pytest.mark.requirement("RUN-11")
def test_a_run_over_mtls_gives_the_plan_and_the_very_weights_of_a_run_without_a_net(
    net: LocalNet, reference: dict[str, Any]
):
    prepare(net, "whole")
    job = net.submit(job_of("whole"))
    assert net.submit(job_of("whole")) == job, "the same attempt is the same job"
    assert net.wait_for_end(job) == "completed"
    assert_finished_as(net, "whole", reference)
    assert [event["round"] for event in net.events("whole", "round-complete")] == [0, 1]
    assert net.submit(job_of("whole")) == job, "also after its end"
    assert [event["seq"] for event in net.events("whole")] == list(range(1, len(net.events("whole")) + 1))


@pytest.mark.requirement("NNU-7")
@pytest.mark.requirement("NNU-8")
@pytest.mark.requirement("NNU-10")
def test_a_prediction_gives_the_masks_and_scores_of_one_without_a_net_and_masks_of_the_site_alone_that_gives_them(
    net: LocalNet, tmp_path: Path
):
    prepare(net, "predicted")
    for folder in (net.hub / "predicted", tmp_path):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(ending(net, "whole")["archive"], folder / "earlier.zip")
    assert net.wait_for_end(net.submit(prediction_of("predicted"))) == "completed"
    last = ending(net, "predicted")
    assert last["kind"] == "finished", last
    sealed, digest = check(Path(last["archive"]))
    assert digest == last["seal_sha256"]

    asked = InferenceJob.model_validate(prediction_of("predicted"))
    predictors = {
        site: Predictor(net.runs / site / "predicted", tmp_path / site, asked, 1, "masks", None) for site in TRUSTS
    }
    outcome = infer(LocalSites(predictors), asked, FolderStore(tmp_path), lambda _: None)
    expected, _ = check(outcome.results.archive)
    masks = "predictions/KCH/Dataset001.zip"
    assert set(sealed["digests"]["files"]) == {"predictions/scores.json", masks}
    assert sealed["digests"]["files"][masks] == expected["digests"]["files"][masks]
    assert sealed["model"] == expected["model"]
    [told] = net.events("predicted", "predicted")
    with zipfile.ZipFile(outcome.results.archive) as results:
        scores = json.loads(results.read("predictions/scores.json"))["1"]
    assert {site: each["scores"] for site, each in told["sites"].items()} == {
        site: each["scores"] for site, each in scores.items()
    }


def test_an_attempt_submitted_with_another_job_is_refused(net: LocalNet):
    reply = net.send(
        op="submit", run_id="whole", attempt=1, trusts=TRUSTS, run_folder=str(net.hub), job=job_of("whole")
    )
    assert reply["error"]["code"] == "attempt-differs"


@pytest.mark.requirement("RUN-6")
def test_an_abort_in_mid_round_leaves_no_process_at_any_site(net: LocalNet):
    prepare(net, "aborted")
    job = net.submit(job_of("aborted", iterations=100_000))
    wait_until(lambda: net.events("aborted", "training-started"), "the first round")
    assert len(net.trainers()) >= 5
    net.ask(op="abort", job=job)
    wait_until(lambda: not net.trainers(), "the end of every process of the job", GONE_AFTER_ABORT_S)
    assert net.wait_for_end(job) == "aborted"
    assert (ending(net, "aborted")["kind"], ending(net, "aborted")["reason"]) == ("interrupted", "job-aborted")
    assert net.ask(op="running") == {"jobs": []}


@pytest.mark.requirement("NNU-2")
@pytest.mark.requirement("NNU-4")
def test_a_site_that_trains_by_another_plan_than_the_agreed_one_is_left_out(net: LocalNet):
    prepare(net, "other-plan")
    job = net.submit({**job_of("other-plan", iterations=40), "minimum_sites": 1})
    wait_until(lambda: net.events("other-plan", "training-started"), "KCH's first weights, made by the agreed plan")
    plan = net.runs / "KCH" / ".site" / "project" / "runs" / "other-plan" / "plan.json"
    changed = plan.with_name("changed-plan.json")
    changed.write_text(json.dumps({**json.loads(plan.read_text()), "changed": True}))
    changed.replace(plan)
    assert net.wait_for_end(job) == "completed"
    last = net.events("other-plan", "contribution-excluded")[-1]
    assert (last["round"], last["site"], last["reason"]) == (1, "KCH", "wrong-plan")
    assert list(net.events("other-plan", "round-complete")[-1]["sites"]) == ["UCLH"]


@pytest.mark.requirement("RUN-3")
def test_a_killed_client_interrupts_its_job_even_if_it_comes_back_at_once(net: LocalNet):
    prepare(net, "orphaned")
    job = net.submit(job_of("orphaned"))
    wait_until(lambda: len(net.training()) == 2, "a trainer at each site")
    net.kill("KCH")
    assert processes_of(net.kits / "KCH") == []
    net.start("KCH")
    assert net.wait_for_end(job) == "failed"
    last = ending(net, "orphaned")
    assert (last["kind"], last["reason"], list(last["sites"])) == ("interrupted", "sites-silent", ["KCH"])
    net.wait_for_sites()


@pytest.mark.requirement("RUN-3")
def test_a_trainer_that_hangs_is_not_waited_for_for_ever(net: LocalNet):
    prepare(net, "hanging")
    job = net.submit({**job_of("hanging", iterations=40), "patience": {"factor": 2, "least_s": 30}})
    wait_until(lambda: net.events("hanging", "training-started"), "the first round")
    net.trainer("KCH").suspend()
    assert net.wait_for_end(job) == "failed"
    last = ending(net, "hanging")
    assert (last["kind"], last["reason"], list(last["sites"])) == ("interrupted", "sites-silent", ["KCH"])
    wait_until(lambda: not net.trainers(), "the end of every process of the run", GONE_AFTER_ABORT_S)


@pytest.mark.requirement("NNU-9")
@pytest.mark.requirement("RUN-9")
def test_a_server_killed_in_round_1_loses_the_job_and_the_next_attempt_resumes_to_the_same_weights(
    net: LocalNet, reference: dict[str, Any]
):
    prepare(net, "resumed")
    job = net.submit(job_of("resumed"))
    wait_until(lambda: net.events("resumed", "round-complete"), "the end of round 0")
    net.kill("server")
    assert net.send(op="status", job=job)["error"]["code"] == "net-unreachable"
    assert len(net.events("resumed", "round-complete")) == 1, "the server was killed before round 1 ended"
    net.start("server")
    net.wait_for_sites()
    assert net.state(job) == "lost"
    again = net.submit(job_of("resumed", first_round=1), attempt=2)
    assert net.wait_for_end(again) == "completed"
    assert_finished_as(net, "resumed", reference)
    assert [(event["attempt"], event["round"]) for event in net.events("resumed", "round-complete")] == [(1, 0), (2, 1)]
