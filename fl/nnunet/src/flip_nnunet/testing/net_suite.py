"""What every framework's net has to do: the same weights as without a net, through kills and aborts."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import SimpleITK

from flip_nnunet.federation import federate
from flip_nnunet.inference import infer
from flip_nnunet.job import InferenceJob, Job
from flip_nnunet.local import LocalSites
from flip_nnunet.seal import check
from flip_nnunet.store import FolderStore
from flip_nnunet.testing.local_net import TRUSTS, LocalNet, wait_until

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


def wait_until_nothing_is_left(net: LocalNet) -> None:
    wait_until(lambda: not net.of_runs(), "the end of every process of the run", GONE_AFTER_ABORT_S)


class NetSuite:
    """The tests go in order and share one net, as a long-lived net takes one run after the other.

    A framework's test class inherits them; its tests have the fixture `net`, and add what is the framework's own.
    """

    after_server_was_killed: ClassVar[str]
    """The state of a job whose server was killed and has been started again."""

    @pytest.fixture(scope="class")
    def reference(self, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
        """What the local harness makes of the same data."""
        folder = tmp_path_factory.mktemp("reference")
        data = {site: write_dataset(folder / site, site, "r") for site in TRUSTS}
        job = Job.model_validate(job_of("r"))
        with LocalSites(data, folder / "work", job, minimum_cases=1) as sites:
            outcome = federate(sites, job, FolderStore(folder / "hub"), lambda _: None)
        return {"plan_digest": outcome.plan_digest, "weights_digest": outcome.weights_digest, "cases": outcome.cases}

    @pytest.mark.requirement("NNU-2")
    @pytest.mark.requirement("NNU-4")
    @pytest.mark.requirement("NNU-10")
    @pytest.mark.requirement("RUN-11")
    def test_a_run_gives_the_plan_and_the_very_weights_of_the_local_harness(
        self, net: LocalNet, reference: dict[str, Any]
    ):
        prepare(net, "whole")
        job = net.submit(job_of("whole"))
        assert net.submit(job_of("whole")) == job, "the same attempt is the same job"
        assert net.wait_for_end(job) == "completed"
        assert_finished_as(net, "whole", reference)
        assert [event["round"] for event in net.events("whole", "round-complete")] == [0, 1]
        assert net.submit(job_of("whole")) == job, "also after its end"
        assert [event["seq"] for event in net.events("whole")] == list(range(1, len(net.events("whole")) + 1))
        wait_until_nothing_is_left(net)

    @pytest.mark.requirement("NNU-7")
    @pytest.mark.requirement("NNU-8")
    @pytest.mark.requirement("NNU-10")
    def test_a_prediction_gives_the_masks_and_scores_of_one_without_a_net_and_masks_of_the_site_alone_that_gives_them(
        self, net: LocalNet, tmp_path: Path
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
        data = {site: net.runs / site / "predicted" for site in TRUSTS}
        with LocalSites(data, tmp_path / "work", asked, 1, "masks") as sites:
            outcome = infer(sites, asked, FolderStore(tmp_path), lambda _: None)
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

    def test_an_attempt_submitted_with_another_job_is_refused(self, net: LocalNet):
        reply = net.send(
            op="submit", run_id="whole", attempt=1, trusts=TRUSTS, run_folder=str(net.hub), job=job_of("whole")
        )
        assert reply["error"]["code"] == "attempt-differs"

    @pytest.mark.requirement("RUN-6")
    def test_an_abort_in_mid_round_leaves_no_process_at_any_site(self, net: LocalNet):
        prepare(net, "aborted")
        job = net.submit(job_of("aborted", iterations=100_000))
        wait_until(lambda: net.events("aborted", "training-started"), "the first round")
        assert len(net.of_runs()) >= 3, "one at the hub, one at each site"
        assert net.ask(op="running") == {"jobs": [job]}
        net.ask(op="abort", job=job)
        wait_until_nothing_is_left(net)
        assert net.wait_for_end(job) == "aborted"
        assert (ending(net, "aborted")["kind"], ending(net, "aborted")["reason"]) == ("interrupted", "job-aborted")
        assert net.ask(op="running") == {"jobs": []}
        assert net.ask(op="abort", job=job)["state"] == "aborted", "one that is over stays as it is"

    @pytest.mark.requirement("RUN-3")
    def test_a_trainer_that_hangs_is_not_waited_for_for_ever(self, net: LocalNet):
        prepare(net, "hanging")
        job = net.submit({**job_of("hanging", iterations=40), "patience": {"factor": 2, "least_s": 30}})
        wait_until(lambda: net.events("hanging", "training-started"), "the first round")
        net.trainer("KCH").suspend()
        assert net.wait_for_end(job) == "failed"
        last = ending(net, "hanging")
        assert (last["kind"], last["reason"], list(last["sites"])) == ("interrupted", "sites-silent", ["KCH"])
        wait_until_nothing_is_left(net)

    @pytest.mark.requirement("NNU-9")
    @pytest.mark.requirement("RUN-9")
    def test_a_server_killed_in_round_1_loses_the_job_and_the_next_attempt_resumes_to_the_same_weights(
        self, net: LocalNet, reference: dict[str, Any]
    ):
        prepare(net, "resumed")
        job = net.submit(job_of("resumed"))
        wait_until(lambda: net.events("resumed", "round-complete"), "the end of round 0")
        net.kill("server")
        assert net.send(op="status", job=job)["error"]["code"] == "net-unreachable"
        assert len(net.events("resumed", "round-complete")) == 1, "the server was killed before round 1 ended"
        net.start("server")
        net.wait_for_sites()
        assert net.state(job) == self.after_server_was_killed
        again = net.submit(job_of("resumed", first_round=1), attempt=2)
        assert net.wait_for_end(again) == "completed"
        assert_finished_as(net, "resumed", reference)
        assert [(event["attempt"], event["round"]) for event in net.events("resumed", "round-complete")] == [
            (1, 0),
            (2, 1),
        ]

    @pytest.mark.requirement("RUN-3")
    def test_a_site_that_left_while_the_server_was_away_does_not_count_as_connected(self, net: LocalNet):
        net.kill("server")
        net.kill("KCH")
        net.start("server")
        seen = wait_until(net.connected, "any site connected")
        assert seen == ["UCLH"]
        net.start("KCH")
        net.wait_for_sites()


def assert_finished_as(net: LocalNet, run_id: str, reference: dict[str, Any]) -> None:
    last = ending(net, run_id)
    assert last["kind"] == "finished", last
    assert {key: last[key] for key in reference} == reference
    assert Path(last["archive"]).is_file()
