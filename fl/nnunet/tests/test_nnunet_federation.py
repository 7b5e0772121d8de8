"""Whole federations over spawned sites, and what goes wrong in them."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from flip_nnunet.aggregation import TooFewContributions
from flip_nnunet.conduct import SILENT
from flip_nnunet.dataset import RawDataset
from flip_nnunet.federation import JobUnfit, Outcome, PlansDiffer, SchemasDiffer, WeightsUnfit, federate
from flip_nnunet.job import Job
from flip_nnunet.local import LocalSites
from flip_nnunet.message import NO_ANSWER, Json, Message, SiteFailure, SitesFailed, canonical_json
from flip_nnunet.payload import ComputeProfile, TrainingPayload
from flip_nnunet.seal import check
from flip_nnunet.store import FolderStore
from killed_hub import train_until_killed
from synthetic import Family, write_dataset
from workers_here import Change, WorkersHere

TINY = ComputeProfile(
    name="tiny",
    base_features=8,
    max_features=16,
    max_batch_size=4,
    iterations_per_epoch=4,
    validation_iterations=1,
    threads=1,
    augmentation_processes=0,
    intensity_voxels=10**5,
)
FAMILIES = {"KCH": Family(1, 4), "UCLH": Family(2, 5, (1.1, 1.1, 1.4), (24, 26, 20), shift=20, scale=1.3)}

STRUCTURES = {"organ", "lesion"}
MODEL = "Dataset005_brains/nnUNetTrainer__nnUNetPlans__2d"
COHORTS = {"KCH": "c" * 64, "UCLH": "d" * 64}


def job(rounds: int = 2, start: int = 0, **changes: object) -> Job:
    payload = {"mode": "training", "num_rounds": rounds, "dataset_id": 5, "model_configuration": "2d", "device": "cpu"}
    fields = {
        "run_id": "run",
        "dataset_name": "Dataset005_brains",
        "payload": TrainingPayload.model_validate({**payload, "starting_fed_round": start}),
        "profile": TINY,
        "seed": 7,
        "cohorts": COHORTS,
    }
    return Job.model_validate(fields | changes)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("data")
    for site, family in FAMILIES.items():
        write_dataset(folder / site / "nnUNet_raw", f"Dataset005_of_{site}", family)
    return {site: folder / site for site in FAMILIES}


@dataclass(frozen=True)
class Ran:
    outcome: Outcome
    events: list[Json]
    data: dict[str, Path]
    work: Path

    def told(self, kind: str) -> list[Json]:
        return [event for event in self.events if event["kind"] == kind]


@pytest.fixture(scope="module")
def trained(data: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A run of two rounds, never interrupted."""
    return run(data, tmp_path_factory.mktemp("trained"), job())


def run(data: dict[str, Path], work: Path, asked: Job) -> Ran:
    events: list[Json] = []
    with LocalSites(data, work, asked, minimum_cases=3) as sites:
        outcome = federate(sites, asked, FolderStore(work / "hub"), events.append)
    return Ran(outcome, events, data, work)


@pytest.mark.requirement("NNU-4")
def test_a_run_tells_its_stages_and_every_round_in_order(trained: Ran):
    assert [event["kind"] for event in trained.events] == [
        "preparing",
        "fingerprint",
        "plan-agreed",
        "preprocessing",
        "preprocessed",
        "training-started",
        "round-complete",
        "round-complete",
        "exported",
    ]
    for number, event in enumerate(trained.told("round-complete")):
        assert event["round"] == number
        assert {site: told["weight"] for site, told in event["sites"].items()} == {"KCH": 4 / 9, "UCLH": 5 / 9}
        assert all(np.isfinite(told["metrics"]["train_loss"]) for told in event["sites"].values())
        assert all(told["metrics"]["dice_per_class"].keys() == STRUCTURES for told in event["sites"].values())
    rates = [event["sites"]["KCH"]["metrics"]["learning_rate"] for event in trained.told("round-complete")]
    assert rates == pytest.approx([0.01, 0.01 * 0.5**0.9])  # nnU-Net's schedule over all rounds
    assert trained.outcome.weights_digest == trained.told("round-complete")[-1]["digest"]


def best_of(ran: Ran) -> tuple[Json, bytes]:
    """What the seal says of the best round, and the checkpoint of that round."""
    sealed, _ = check(ran.outcome.results.archive)
    with zipfile.ZipFile(ran.outcome.results.archive) as archive:
        return sealed["best"], archive.read(f"{MODEL}/fold_all/checkpoint_best.pth")


@pytest.mark.requirement("NNU-5")
def test_the_results_have_the_best_round_beside_the_last_by_the_dice_that_the_sites_told(trained: Ran, tmp_path: Path):
    rounds = trained.told("round-complete")
    dices = [
        sum(site["weight"] * site["metrics"]["dice"] for _, site in sorted(each["sites"].items())) for each in rounds
    ]
    scores = [dices[0], 0.9 * dices[0] + 0.1 * dices[1]]
    number = int(scores[1] > scores[0])
    told, checkpoint = best_of(trained)
    assert told == {"round": number, "digest": rounds[number]["digest"], "score": pytest.approx(scores[number])}
    (tmp_path / "best.pth").write_bytes(checkpoint)
    read = torch.load(tmp_path / "best.pth", weights_only=True)
    assert read["current_epoch"] == number + 1
    expected = FolderStore(trained.work / "hub").load_round(number)
    assert expected
    for name, weights in expected.items():
        assert np.array_equal(read["network_weights"][name].numpy(), weights)


@pytest.mark.requirement("NNU-5")
def test_plain_nnunet_predicts_with_the_unzipped_results(trained: Ran, data: dict[str, Path], tmp_path: Path):
    with zipfile.ZipFile(trained.outcome.results.archive) as archive:
        archive.extractall(tmp_path / "results")
    image = next((data["KCH"] / "nnUNet_raw").rglob("imagesTr/*_0000.nii.gz"))
    (tmp_path / "in").mkdir()
    shutil.copy(image, tmp_path / "in")
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    subprocess.run(
        [
            *(Path(sys.executable).with_name("nnUNetv2_predict"), "-i", tmp_path / "in", "-o", tmp_path / "out"),
            *("-d", "005", "-c", "2d", "-f", "all", "-device", "cpu", "-npp", "1", "-nps", "1"),
        ],
        env=plain | {"nnUNet_results": str(tmp_path / "results"), "OMP_NUM_THREADS": "1"},
        check=True,
        timeout=240,
    )
    (predicted,) = (tmp_path / "out").glob("*.nii.gz")
    assert nibabel.load(predicted).shape == nibabel.load(image).shape  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.requirement("FILE-6")
def test_the_seal_in_the_zip_names_data_cohorts_software_seed_rounds_and_every_file(trained: Ran):
    with zipfile.ZipFile(trained.outcome.results.archive) as archive:
        names = archive.namelist()
    sealed, digest = check(trained.outcome.results.archive)
    assert set(names) == {*sealed["digests"]["files"], f"{MODEL}/seal.json"}
    assert {f"{MODEL}/plans.json", f"{MODEL}/dataset.json", f"{MODEL}/fold_all/checkpoint_final.pth"} <= set(names)
    assert sealed["digests"]["plan"] == trained.outcome.plan_digest
    assert sealed["digests"]["weights"] == sealed["rounds"]["1"] == trained.outcome.weights_digest
    assert sealed["job"]["seed"] == 7
    assert {site: told["cases"] for site, told in sealed["sites"].items()} == {"KCH": 4, "UCLH": 5}
    assert {site: told["cohort"] for site, told in sealed["sites"].items()} == COHORTS
    raw = RawDataset.find(trained.data["KCH"] / "nnUNet_raw", 5)
    assert sealed["sites"]["KCH"]["data"] == raw.digest() != sealed["sites"]["UCLH"]["data"]
    for versions in (sealed["hub"]["versions"], *(told["versions"] for told in sealed["sites"].values())):
        assert versions["nnunetv2"] == version("nnunetv2")
        assert {"python", "torch", "numpy", "flip-nnunet"} <= versions.keys()
    assert trained.told("exported")[0]["seal_sha256"] == trained.outcome.facts()["seal_sha256"] == digest


@pytest.mark.requirement("NNU-9")
def test_a_run_resumed_by_new_processes_equals_the_uninterrupted_one_bit_for_bit(
    trained: Ran, data: dict[str, Path], tmp_path: Path
):
    for part in ("sites", "hub/rounds"):
        shutil.copytree(trained.work / part, tmp_path / part)
    # As if the hub had been lost while it waited for round 1, which the sites had already trained.
    (tmp_path / "hub" / "rounds" / "round_00001.npz").unlink()
    resumed = run(data, tmp_path, job(start=1))
    assert resumed.outcome.weights_digest == trained.outcome.weights_digest
    assert best_of(resumed) == best_of(trained)
    (only,) = resumed.told("round-complete")
    assert {told["state"] for told in only["sites"].values()} == {"disk"}
    assert all(site["reused"] for site in resumed.told("preprocessed")[0]["sites"].values())


def members(ran: Ran) -> dict[str, bytes]:
    """The files of the results but their seal, which has the job of its own attempt."""
    with zipfile.ZipFile(ran.outcome.results.archive) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/seal.json")}


@pytest.mark.requirement("NNU-9")
@pytest.mark.requirement("RUN-9")
def test_a_run_killed_after_its_last_round_trains_nothing_anew_and_ends_with_the_very_same_results(
    trained: Ran, data: dict[str, Path], tmp_path: Path
):
    for part in ("sites", "hub/rounds"):
        shutil.copytree(trained.work / part, tmp_path / part)
    (tmp_path / "hub" / "rounds" / "round_00001.npz").unlink()
    hub = multiprocessing.get_context("spawn").Process(target=train_until_killed, args=(data, tmp_path, job(start=1)))
    hub.start()
    hub.join()
    assert hub.exitcode == -signal.SIGKILL
    assert not list(tmp_path.rglob("*.zip"))
    resumed = run(data, tmp_path, job(start=2))
    assert not resumed.told("training-started")
    assert not resumed.told("round-complete")
    assert members(resumed) == members(trained)
    assert resumed.outcome.weights_digest == trained.outcome.weights_digest
    sealed, _ = check(resumed.outcome.results.archive)
    assert sealed["rounds"] == {"1": trained.outcome.weights_digest}


@pytest.mark.requirement("NNU-3")
def test_preprocessed_data_are_reused_by_another_run_and_never_leave_the_site(
    trained: Ran, data: dict[str, Path], tmp_path: Path
):
    shutil.copytree(trained.work / "sites", tmp_path / "sites")
    asked = job(rounds=1, run_id="another", seed=8)
    here = WorkersHere(data, tmp_path / "sites", asked)
    again: list[Json] = []
    outcome = federate(here, asked, FolderStore(tmp_path / "hub"), again.append)
    assert outcome.plan_digest == trained.outcome.plan_digest
    (told,) = [event for event in again if event["kind"] == "preprocessed"]
    assert all(site["reused"] for site in told["sites"].values())
    preprocessed = list((tmp_path / "sites").rglob("*.b2nd"))
    assert len(preprocessed) == 2 * 9
    biggest_image = max(file.stat().st_size for file in preprocessed)
    reply = next(reply for operation, _, reply in here.answers if operation == "preprocess")
    assert not reply.arrays
    assert len(reply.to_bytes()) < biggest_image


@pytest.mark.requirement("NNU-4")
def test_direct_calls_and_spawned_processes_give_the_same_weights_and_each_tensor_travels_once(
    trained: Ran, data: dict[str, Path], tmp_path: Path
):
    here = WorkersHere(data, tmp_path, job())
    outcome = federate(here, job(), FolderStore(tmp_path / "hub"), lambda _: None)
    [ties] = [reply.meta["ties"] for operation, _, reply in here.answers if operation == "initialise"]
    travelled = [
        set(reply.arrays) for operation, _, reply in here.answers if operation in {"initialise", "train_round"}
    ]
    assert travelled == [set(ties.values())] * (1 + 2 * len(FAMILIES))
    assert len(ties) > len(travelled[0]), "nnU-Net's networks have tensors of several names"
    assert outcome.weights_digest == trained.outcome.weights_digest
    assert outcome.results.sha256 == trained.outcome.results.sha256


@pytest.mark.requirement("NNU-9")
def test_a_site_that_has_lost_its_state_goes_on_and_says_so(trained: Ran, data: dict[str, Path], tmp_path: Path):
    shutil.copytree(trained.work / "hub" / "rounds", tmp_path / "hub" / "rounds")
    resumed = job(start=1)
    events: list[Json] = []
    outcome = federate(WorkersHere(data, tmp_path, resumed), resumed, FolderStore(tmp_path / "hub"), events.append)
    (only,) = [event for event in events if event["kind"] == "round-complete"]
    assert {told["state"] for told in only["sites"].values()} == {"lost"}
    assert outcome.weights_digest != trained.outcome.weights_digest


DISK_FULL = SiteFailure("disk-full", "")


def failing(operation: str, failure: SiteFailure = DISK_FULL) -> Change:
    """UCLH fails when it is asked this."""

    def change(asked: str, site: str, answer: Message) -> Message:
        return failure.as_message() if (asked, site) == (operation, "UCLH") else answer

    return change


@pytest.fixture(scope="module")
def alone(data: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """What comes of KCH's data alone."""
    asked, work = job(rounds=1), tmp_path_factory.mktemp("alone")
    return federate(WorkersHere({"KCH": data["KCH"]}, work, asked), asked, FolderStore(work / "hub"), lambda _: None)


@pytest.mark.requirement("RUN-4")
@pytest.mark.parametrize(
    ("operation", "failure"),
    [
        ("describe", SiteFailure("too-few-cases", "")),
        ("statistics", DISK_FULL),
        ("geometry", SILENT),
        ("plan", SiteFailure("unexpected-error", "")),
        ("preprocess", DISK_FULL),
    ],
)
def test_a_site_that_fails_before_the_first_round_is_left_out_where_the_others_are_enough(
    alone: Outcome, data: dict[str, Path], tmp_path: Path, operation: str, failure: SiteFailure
):
    asked, events = job(rounds=1, minimum_sites=1), list[Json]()
    sites = WorkersHere(data, tmp_path, asked, change=failing(operation, failure))
    outcome = federate(sites, asked, FolderStore(tmp_path / "hub"), events.append)
    told = {"kind": "site-left-out", "site": "UCLH", "reason": failure.code, "operation": operation}
    assert [event for event in events if event["kind"] == "site-left-out"] == [told]
    assert (outcome.plan_digest, outcome.weights_digest) == (alone.plan_digest, alone.weights_digest)
    assert outcome.cases == {"KCH": 4}
    sealed, _ = check(outcome.results.archive)
    assert sealed["sites"].keys() == {"KCH"}
    agreed = [event for event in events if event["kind"] == "plan-agreed"]
    assert (agreed[-1]["sites"], agreed[-1]["digest"]) == (["KCH"], alone.plan_digest)


@pytest.mark.requirement("RUN-4")
@pytest.mark.parametrize("changes", [{}, {"minimum_sites": 2}, {"minimum_sites": 1, "aggregation_weights": {"KCH": 0}}])
def test_a_site_that_fails_ends_the_attempt_where_without_it_too_few_would_count(
    data: dict[str, Path], tmp_path: Path, changes: Json
):
    asked = job(rounds=1, **changes)
    sites = WorkersHere(data, tmp_path, asked, change=failing("statistics"))
    with pytest.raises(SitesFailed, match="UCLH"):
        federate(sites, asked, FolderStore(tmp_path / "hub"), lambda _: None)


@pytest.mark.requirement("RUN-4")
def test_a_resumed_run_is_not_planned_without_a_site_whose_data_its_weights_are_of(
    trained: Ran, data: dict[str, Path], tmp_path: Path
):
    shutil.copytree(trained.work / "hub" / "rounds", tmp_path / "hub" / "rounds")
    asked = job(start=1, minimum_sites=1)
    sites = WorkersHere(data, tmp_path, asked, change=failing("statistics"))
    with pytest.raises(SitesFailed, match="UCLH"):
        federate(sites, asked, FolderStore(tmp_path / "hub"), lambda _: None)


@pytest.mark.requirement("NNU-9")
def test_weights_of_another_network_are_refused_before_any_site_trains(
    trained: Ran, data: dict[str, Path], tmp_path: Path
):
    store = FolderStore(tmp_path / "hub")
    weights = FolderStore(trained.work / "hub").load_round(0)
    name = min(weights)
    store.save_round(0, {**weights, name: weights[name][:-1]})
    asked, events = job(start=1), list[Json]()
    with pytest.raises(WeightsUnfit, match=f"wrong-shape: {name}"):
        federate(WorkersHere(data, tmp_path, asked), asked, store, events.append)
    assert "training-started" not in {event["kind"] for event in events}


@pytest.mark.requirement("NNU-9")
@pytest.mark.requirement("NNU-10")
def test_the_seal_of_a_resumed_run_begins_with_the_round_that_it_went_on_from(
    trained: Ran, data: dict[str, Path], tmp_path: Path
):
    shutil.copytree(trained.work / "hub" / "rounds", tmp_path / "hub" / "rounds")
    resumed = job(start=1)
    outcome = federate(WorkersHere(data, tmp_path, resumed), resumed, FolderStore(tmp_path / "hub"), lambda _: None)
    whole, _ = check(trained.outcome.results.archive)
    sealed, _ = check(outcome.results.archive)
    assert sealed["rounds"] == {"0": whole["rounds"]["0"], "1": outcome.weights_digest}


@pytest.mark.requirement("NNU-5")
def test_the_order_of_regions_survives_a_transport_that_sorts_keys(tmp_path: Path):
    labels = {"background": 0, "whole": [1, 2], "lesion": 2}
    folder = write_dataset(tmp_path / "KCH" / "nnUNet_raw", "Dataset005_regions", FAMILIES["KCH"])
    description = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**description, "labels": labels, "regions_class_order": [1, 2]}))

    def sort_keys(_operation: str, _site: str, answer: Message) -> Message:
        return Message(json.loads(canonical_json(answer.meta)), answer.arrays)

    sites = WorkersHere({"KCH": tmp_path / "KCH"}, tmp_path / "work", job(rounds=1), change=sort_keys)
    events: list[Json] = []
    outcome = federate(sites, job(rounds=1), FolderStore(tmp_path / "hub"), events.append)
    (metrics,) = [event["sites"]["KCH"]["metrics"] for event in events if event["kind"] == "round-complete"]
    (told,) = [answer.meta["metrics"] for operation, _, answer in sites.answers if operation == "train_round"]
    assert list(metrics["dice_per_class"].items()) == list(
        zip(("whole", "lesion"), told["dice_per_class"], strict=True)
    )
    with zipfile.ZipFile(outcome.results.archive) as archive:
        exported = json.loads(archive.read("Dataset005_brains/nnUNetTrainer__nnUNetPlans__2d/dataset.json"))
    assert list(exported["labels"].items()) == list(labels.items())


@pytest.mark.requirement("NNU-4")
def test_a_fold_of_3d_fullres_on_float_images_of_two_channels_is_trained_and_exported(tmp_path: Path):
    places = {"KCH": tmp_path / "KCH", "UCLH": tmp_path / "UCLH"}
    for seed, place in enumerate(places.values()):
        write_dataset(
            place / "nnUNet_raw", "Dataset005_x", Family(seed, 6, shape=(18, 18, 18), channels=2, integer=False)
        )
    payload = TrainingPayload.model_validate(
        {**job(rounds=1).payload.model_dump(), "model_configuration": "3d_fullres", "fold_id": 2}
    )
    asked = job(payload=payload)
    events: list[Json] = []
    outcome = federate(WorkersHere(places, tmp_path / "work", asked), asked, FolderStore(tmp_path), events.append)
    [told] = [event["sites"] for event in events if event["kind"] == "round-complete"]
    assert {site: of["cases"] for site, of in told.items()} == {"KCH": 5, "UCLH": 5}  # a fold of six leaves one out
    with zipfile.ZipFile(outcome.results.archive) as archive:
        names = set(archive.namelist())
    assert "Dataset005_brains/nnUNetTrainer__nnUNetPlans__3d_fullres/fold_2/checkpoint_final.pth" in names


# --- what goes wrong ------------------------------------------------------------------------------------------------


@pytest.mark.requirement("NNU-2")
def test_plans_that_differ_end_the_run_and_show_the_difference(data: dict[str, Path], tmp_path: Path):
    def tampered(operation: str, site: str, answer: Message) -> Message:
        if (operation, site) == ("plan", "UCLH"):
            answer.meta["plan"]["configurations"]["2d"]["batch_size"] = 99
        return answer

    events: list[Json] = []
    sites = WorkersHere(data, tmp_path, job(), change=tampered)
    with pytest.raises(PlansDiffer) as differ:
        federate(sites, job(), FolderStore(tmp_path / "hub"), events.append)
    assert differ.value.differences == [
        {"path": "/configurations/2d/batch_size", "values": {"KCH": 4, "UCLH": 99}},
    ]
    assert "plan-agreed" not in {event["kind"] for event in events}


@pytest.mark.requirement("NNU-1")
def test_data_sets_with_other_labels_are_not_trained_together(data: dict[str, Path], tmp_path: Path):
    def renamed(operation: str, site: str, answer: Message) -> Message:
        if (operation, site) == ("describe", "KCH"):
            schema = {**json.loads(answer.meta["schema"]), "labels": {"background": 0, "tumour": 1}}
            answer.meta["schema"] = json.dumps(schema)
        return answer

    with pytest.raises(SchemasDiffer, match="/labels/tumour"):
        federate(WorkersHere(data, tmp_path, job(), change=renamed), job(), FolderStore(tmp_path), lambda _: None)


def poisoned(operation: str, site: str, answer: Message) -> Message:
    if (operation, site) == ("train_round", "UCLH"):
        next(iter(answer.arrays.values())).flat[0] = np.nan
    return answer


@pytest.mark.requirement("NNU-4")
def test_a_poisoned_contribution_ends_a_run_that_needs_every_site(data: dict[str, Path], tmp_path: Path):
    events: list[Json] = []
    sites = WorkersHere(data, tmp_path, job(), change=poisoned)
    with pytest.raises(TooFewContributions, match="round 0"):
        federate(sites, job(), FolderStore(tmp_path / "hub"), events.append)
    excluded = {key: events[-1][key] for key in ("kind", "round", "site", "reason")}
    assert excluded == {"kind": "contribution-excluded", "round": 0, "site": "UCLH", "reason": "not-finite"}
    assert not list((tmp_path / "hub").rglob("*.npz"))


@pytest.mark.requirement("NNU-4")
def test_a_site_that_answers_badly_is_left_out_of_that_round_alone(data: dict[str, Path], tmp_path: Path):
    def nothing(_: Message) -> Message:
        return SiteFailure(NO_ANSWER, "gone").as_message()

    def of_another_plan(answer: Message) -> Message:
        return Message({**answer.meta, "plan": "0" * 64}, answer.arrays)

    def stale(answer: Message) -> Message:
        return Message({**answer.meta, "round": answer.meta["round"] - 1}, answer.arrays)

    def of_another_shape(answer: Message) -> Message:
        return Message(answer.meta, {name: array[..., np.newaxis] for name, array in answer.arrays.items()})

    faults = [nothing, of_another_plan, stale, of_another_shape]

    def bad_at_uclh(operation: str, site: str, answer: Message) -> Message:
        if (operation, site) == ("train_round", "UCLH") and answer.meta["round"] < len(faults):
            return faults[answer.meta["round"]](answer)
        return nothing(answer) if (operation, site) == ("stop", "UCLH") else answer

    asked = job(rounds=5, minimum_sites=1)
    events: list[Json] = []
    sites = WorkersHere(data, tmp_path, asked, change=bad_at_uclh)
    federate(sites, asked, FolderStore(tmp_path / "hub"), events.append)
    excluded = [event for event in events if event["kind"] == "contribution-excluded"]
    assert [(event["round"], event["site"]) for event in excluded] == [(number, "UCLH") for number in range(4)]
    assert [event["reason"] for event in excluded] == [NO_ANSWER, "wrong-plan", "wrong-round", "wrong-shape"]
    rounds = [event for event in events if event["kind"] == "round-complete"]
    assert [list(event["sites"]) for event in rounds] == [["KCH"]] * 4 + [["KCH", "UCLH"]]
    assert all(site["update"] < 1 for event in rounds for site in event["sites"].values())


@pytest.mark.requirement("FILE-4")
def test_a_round_s_weights_are_those_computed_by_hand_from_cases_and_aggregation_weights(
    data: dict[str, Path], tmp_path: Path
):
    asked = job(rounds=1, aggregation_weights={"UCLH": 0.4})
    sites = WorkersHere(data, tmp_path, asked)
    store = FolderStore(tmp_path / "hub")
    federate(sites, asked, store, lambda _: None)
    kch, uclh = (reply.arrays for operation, _, reply in sites.answers if operation == "train_round")
    for name, mean in store.load_round(0).items():
        by_hand = (4 * kch[name].astype(np.float64) + 5 * 0.4 * uclh[name].astype(np.float64)) / 6
        np.testing.assert_allclose(mean, by_hand, rtol=1e-7, atol=1e-12)


@pytest.mark.requirement("FILE-4")
def test_a_job_with_a_weight_for_a_site_that_takes_no_part_is_refused_before_any_site_is_asked(
    data: dict[str, Path], tmp_path: Path
):
    asked = job(aggregation_weights={"RJ1": 2.0})
    sites = WorkersHere(data, tmp_path, asked)
    with pytest.raises(JobUnfit, match="aggregation_weights: RJ1"):
        federate(sites, asked, FolderStore(tmp_path / "hub"), lambda _: None)
    assert sites.answers == []


@pytest.mark.parametrize("cases", [0, -4, 1.5, float("nan"), True, "4", None])
def test_a_site_that_declares_no_number_of_cases_ends_the_run_by_its_name(
    data: dict[str, Path], tmp_path: Path, cases: object
):
    def declared(operation: str, site: str, answer: Message) -> Message:
        return Message({**answer.meta, "cases": cases}) if (operation, site) == ("describe", "KCH") else answer

    with pytest.raises(SitesFailed, match=r"KCH: malformed-answer \(cases: "):
        federate(WorkersHere(data, tmp_path, job(), change=declared), job(), FolderStore(tmp_path), lambda _: None)


def test_a_site_whose_process_is_killed_is_named(data: dict[str, Path], tmp_path: Path):
    def kill_at_plan(event: Json) -> None:
        if event["kind"] == "preparing":
            os.kill(sites.processes()["UCLH"], signal.SIGKILL)

    with LocalSites(data, tmp_path, job(), minimum_cases=3) as sites, pytest.raises(SitesFailed) as failed:
        federate(sites, job(), FolderStore(tmp_path / "hub"), kill_at_plan)
    assert {site: failure.code for site, failure in failed.value.failures.items()} == {"UCLH": "no-answer"}


@pytest.mark.requirement("RUN-4")
def test_a_missing_device_is_told_by_its_name_before_any_image_is_read(data: dict[str, Path], tmp_path: Path):
    payload = job().payload.model_copy(update={"device": "mps"})
    asked = job(payload=payload)
    sites = WorkersHere(data, tmp_path, asked)
    with pytest.raises(SitesFailed, match="device-missing"):
        federate(sites, asked, FolderStore(tmp_path / "hub"), lambda _: None)
    assert {operation for operation, _, _ in sites.answers} == {"describe"}
