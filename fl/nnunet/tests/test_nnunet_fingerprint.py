"""The federated fingerprint is the pooled one, and nothing of a case leaves a site."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
from flip_nnunet.fingerprint import HISTOGRAM_SIZE, Ask, Fingerprint, federated_fingerprint
from flip_nnunet.job import Job
from flip_nnunet.message import Json, Message, SiteFailed, digest, settle
from flip_nnunet.nnunet import nnunet_environment
from flip_nnunet.orders import EXTENTS, INTENSITIES, REALS, Scale
from flip_nnunet.payload import DEMO, ComputeProfile, TrainingPayload
from flip_nnunet.plan import make_plan
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from synthetic import Family, write_dataset
from workers_here import WorkersHere

NAME = "Dataset005_test"
VOXELS = 10**5
PROFILE = DEMO.model_copy(update={"intensity_voxels": VOXELS})
PAYLOAD = TrainingPayload.model_validate(
    {"mode": "training", "num_rounds": 1, "dataset_id": 5, "model_configuration": "2d", "device": "cpu"}
)
JOB = Job(run_id="run", dataset_name=NAME, payload=PAYLOAD, profile=PROFILE, seed=1)
UNCAPPED = JOB.model_copy(update={"profile": ComputeProfile(name="uncapped", intensity_voxels=VOXELS)})

INTEGER = (Family(1, 3), Family(2, 5, (1.1, 1.1, 3.5), (20, 28, 16), shift=20, scale=1.3))
FLOAT = (Family(3, 3, integer=False, channels=2), Family(4, 4, shift=-7.3, integer=False, channels=2))
MIXED = (Family(5, 3), Family(6, 2, integer=False))


def sites_of(folder: Path, families: tuple[Family, ...], minimum_cases: int = 1) -> WorkersHere:
    data = {f"SITE{number}": folder / f"data{number}" for number in range(len(families))}
    for (site, place), family in zip(data.items(), families, strict=True):
        write_dataset(place / "nnUNet_raw", f"Dataset005_own_{site}", family)
    return WorkersHere(data, folder / "work", JOB, minimum_cases)


def fingerprint_of(sites: WorkersHere) -> tuple[Fingerprint, int]:
    described = sites.settled("describe", Message())
    cases = sum(reply.meta["cases"] for reply in described.values())
    channels = len(json.loads(described["SITE0"].meta["schema"])["channel_names"])
    return federated_fingerprint(asking(sites), cases, channels, VOXELS), cases


def asking(sites: WorkersHere) -> Ask:
    return lambda operation, meta: sites.settled(operation, Message(meta))


def pooled_by_nnunet(folder: Path, families: tuple[Family, ...]) -> Json:
    """What nnU-Net's own extractor finds in all cases together, drawing as many voxels as the federation."""
    write_dataset(folder / "nnUNet_raw", NAME, *families)
    found = extract_by_nnunet(folder)
    assert len(found["spacings"]) == sum(family.cases for family in families)
    return found


def extract_by_nnunet(folder: Path) -> Json:
    """The fingerprint of the data set in `folder`, by nnU-Net's own extractor."""
    with nnunet_environment(folder / "nnUNet_raw", folder / "pre", folder / "res", 1):
        extractor = DatasetFingerprintExtractor(NAME, 1)
        extractor.num_foreground_voxels_for_intensitystats = VOXELS
        extractor.show_progress_bar = False
        threads = SimpleNamespace(Pool=ThreadPool)  # its own spawned processes would only import torch once more
        with mock.patch.object(multiprocessing, "get_context", return_value=threads):
            extractor.run()
    return json.loads((folder / "pre" / NAME / "dataset_fingerprint.json").read_text())


def plan_by_nnunet(folder: Path) -> Json:
    with nnunet_environment(folder / "nnUNet_raw", folder / "pre", folder / "res", 1):
        ExperimentPlanner(NAME).plan_experiment()
    return json.loads((folder / "pre" / NAME / "nnUNetPlans.json").read_text())


@pytest.mark.requirement("NNU-1")
@pytest.mark.parametrize("families", [INTEGER, FLOAT, MIXED], ids=["integer", "float", "mixed"])
def test_fingerprint_and_plan_equal_those_of_the_pooled_data(tmp_path: Path, families: tuple[Family, ...]):
    sites = sites_of(tmp_path, families)
    fingerprint, cases = fingerprint_of(sites)
    pooled = pooled_by_nnunet(tmp_path / "pooled", families)

    key = "foreground_intensity_properties_per_channel"
    assert fingerprint.content[key].keys() == pooled[key].keys()
    for channel, expected in pooled[key].items():
        found = fingerprint.content[key][channel]
        for exact in ("min", "max", "median", "percentile_00_5", "percentile_99_5"):
            assert found[exact] == expected[exact], (channel, exact)
        # nnU-Net sums float32; the federation does not.
        assert found["mean"] == pytest.approx(expected["mean"], rel=1e-6)
        assert found["std"] == pytest.approx(expected["std"], rel=1e-6)
    assert fingerprint.content["median_relative_size_after_cropping"] == pooled["median_relative_size_after_cropping"]

    replies = sites.settled("plan", Message({"fingerprint": fingerprint.as_json(), "cases": cases}))
    plans = [reply.meta["plan"] for reply in replies.values()]
    assert digest(plans[0]) == digest(plans[1])
    expected_plan = plan_by_nnunet(tmp_path / "pooled")
    expected_plan["configurations"]["2d"]["architecture"]["arch_kwargs"]["features_per_stage"] = plans[0][
        "configurations"
    ]["2d"]["architecture"]["arch_kwargs"]["features_per_stage"]
    expected_plan["configurations"]["2d"]["batch_size"] = min(12, expected_plan["configurations"]["2d"]["batch_size"])
    expected_plan[key] = plans[0][key]
    assert plans[0] == expected_plan


@pytest.mark.requirement("NNU-1")
@pytest.mark.parametrize("families", [INTEGER, FLOAT], ids=["integer", "float"])
def test_only_counts_leave_a_site_and_no_value_of_a_case(tmp_path: Path, families: tuple[Family, ...]):
    sites = sites_of(tmp_path, families)
    fingerprint_of(sites)
    for operation, site, reply in sites.answers:
        for name, array in reply.arrays.items():
            assert array.dtype == np.int64, (operation, name)
            assert array.min() >= 0
            assert array.shape[-1] in BINS[operation]
        numbers = set(_numbers(reply.meta))
        assert not numbers & _case_values(tmp_path / f"data{site[-1]}"), (operation, reply.meta)
        if operation in ("geometry", "refine"):
            assert set(reply.meta) <= {"moments"}
    assert {operation for operation, _, _ in sites.answers} >= {"describe", "statistics", "geometry"}


def bins(*scales: Scale) -> set[int]:
    return {1 << bits for scale in scales for bits in scale.digits}


BINS = {"statistics": {HISTOGRAM_SIZE}, "refine": bins(INTENSITIES), "geometry": bins(EXTENTS, REALS)}


def _numbers(value: object) -> Iterator[float]:
    if isinstance(value, dict):
        for part in value.values():
            yield from _numbers(part)
    elif isinstance(value, list):
        for part in value:
            yield from _numbers(part)
    elif isinstance(value, float):
        yield value


def _case_values(data: Path) -> set[float]:
    """Every spacing and relative size of the site's cases, and every voxel value that is not a whole number."""
    values: set[float] = set()
    for label in data.rglob("labelsTr/*.nii.gz"):
        images = sorted(data.rglob(f"imagesTr/{label.name[:-7]}_*.nii.gz"))
        case = DatasetFingerprintExtractor.analyze_case([str(image) for image in images], str(label), SimpleITKIO, 200)
        values |= {float(spacing) for spacing in case[1]} | {float(case[4])}
        values |= {float(voxel) for voxels in case[2] for voxel in voxels}
    return values


@pytest.mark.requirement("NNU-1")
def test_a_site_below_its_threshold_answers_nothing_and_does_not_tell_its_count(tmp_path: Path):
    worker = sites_of(tmp_path, (Family(1, 3),), minimum_cases=10).workers["SITE0"]
    for operation in ("describe", "statistics", "geometry", "plan", "train_round"):
        failure = worker.handle(operation, Message({"voxels_per_case": 5, "columns": {}})).meta["failure"]
        assert failure["code"] in {"too-few-cases", "operation-out-of-order", "unexpected-error"}
        assert "3" not in failure["detail"]
    assert worker.handle("describe", Message()).meta["failure"]["code"] == "too-few-cases"


# --- many federations, of cases that have no images but what nnU-Net would read of them -----------------------------

BASES = {
    "isotropic": ((1.0, 1.0, 1.0), (160, 160, 160)),
    "thick slices first": ((5.0, 0.8, 0.8), (24, 320, 320)),
    "thick slices last": ((0.7, 0.7, 3.0), (300, 300, 90)),
    "cine": ((10.0, 1.5, 1.5), (12, 256, 220)),
}


@dataclass(frozen=True)
class Case:
    """What nnU-Net finds in a case: `voxels` is the foreground, a row a channel, float32 as its readers give it."""

    spacing: tuple[float, ...]
    shape: tuple[int, ...]
    relative_size: float
    voxels: np.ndarray

    def analysed(self, draws: int) -> tuple[object, ...]:
        """As `DatasetFingerprintExtractor.analyze_case` answers."""
        drawn = np.random.RandomState(1234).choice(self.voxels.shape[1], draws, replace=True)
        return self.shape, list(self.spacing), list(self.voxels[:, drawn]), None, self.relative_size


@st.composite
def federations(draw: st.DrawFn) -> list[list[Case]]:
    """The cases of two to five sites, isotropic or not, of integers or floats, with one or two channels."""
    spacing, shape = BASES[draw(st.sampled_from(sorted(BASES)))]
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    channels, integer = draw(st.integers(1, 2)), draw(st.booleans())
    sites: list[list[Case]] = []
    for cases in draw(st.lists(st.integers(1, 24), min_size=2, max_size=5)):
        shift, scale = rng.uniform(-50, 50), rng.uniform(0.7, 1.4)
        site: list[Case] = []
        for _ in range(cases):
            zoom, size = rng.uniform(0.6, 1.6), rng.uniform(0.6, 1.5)
            voxels = rng.gamma(2.0, 80.0, (channels, 400)) * scale + shift
            site.append(
                Case(
                    tuple((np.array(spacing) * zoom * rng.uniform(0.9, 1.1, 3)).astype(np.float32).tolist()),
                    tuple(max(1, round(edge)) for edge in np.array(shape) * size * rng.uniform(0.9, 1.1, 3)),
                    float(rng.uniform(0.6, 1.0)),
                    (np.round(voxels) if integer else voxels).astype(np.float32),
                )
            )
        sites.append(site)
    return sites


def write_empty_dataset(folder: Path, cases: dict[str, Case], *, listed: bool) -> None:
    """A data set without content. `listed`: its files are named, or nnU-Net starts 12 processes to find them."""
    channels = next(iter(cases.values())).voxels.shape[0]
    files: Json = {}
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for name in cases:
        label = folder / "labelsTr" / f"{name}.nii.gz"
        images = [folder / "imagesTr" / f"{name}_{channel:04d}.nii.gz" for channel in range(channels)]
        for file in (label, *images):
            file.touch()
        files[name] = {"images": [str(image) for image in images], "label": str(label)}
    description = {
        "channel_names": {str(channel): "CT" if channel == 0 else "MRI" for channel in range(channels)},
        "labels": {"background": 0, "organ": 1},
        "numTraining": len(cases),
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": "SimpleITKIO",
        **({"dataset": files} if listed else {}),
    }
    (folder / "dataset.json").write_text(json.dumps(description))


@pytest.mark.requirement("NNU-1")
@pytest.mark.requirement("NNU-2")
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(federations())
def test_a_random_federation_plans_as_nnunet_does_on_the_pooled_data(
    tmp_path_factory: pytest.TempPathFactory, federation: list[list[Case]]
):
    folder = tmp_path_factory.mktemp("federation")
    sites = {
        f"SITE{number}": {f"case_{number}_{case:03d}": found for case, found in enumerate(cases)}
        for number, cases in enumerate(federation)
    }
    for site, cases in sites.items():
        write_empty_dataset(folder / site / "nnUNet_raw" / f"Dataset005_own_{site}", cases, listed=False)
    pooled = {name: case for cases in sites.values() for name, case in cases.items()}
    write_empty_dataset(folder / "pooled" / "nnUNet_raw" / NAME, pooled, listed=True)

    def analysed(_images: list[str], label: str, _reader: object, draws: int) -> tuple[object, ...]:
        return pooled[Path(label).name.removesuffix(".nii.gz")].analysed(draws)

    with mock.patch.object(DatasetFingerprintExtractor, "analyze_case", analysed):
        here = WorkersHere({site: folder / site for site in sites}, folder / "work", UNCAPPED)
        fingerprint, cases = fingerprint_of(here)
        extract_by_nnunet(folder / "pooled")
    with torch.device("meta"):  # planning builds networks only to measure them
        question = Message({"fingerprint": fingerprint.as_json(), "cases": cases})
        [reply] = settle("plan", here.ask("plan", question, ["SITE0"])).values()
        expected = plan_by_nnunet(folder / "pooled")
    found = reply.meta["plan"]
    key = "foreground_intensity_properties_per_channel"
    assert {**found, key: None} == {**expected, key: None}
    assert found[key].keys() == expected[key].keys()
    for channel, pooled_channel in expected[key].items():
        for name, value in pooled_channel.items():
            close = pytest.approx(value, rel=1e-6) if name in ("mean", "std") else value
            assert found[key][channel][name] == close, (channel, name)


@pytest.mark.requirement("NNU-4")
def test_a_configuration_that_nnunet_does_not_plan_is_refused_by_name(tmp_path: Path):
    sites = sites_of(tmp_path, INTEGER)
    fingerprint, cases = fingerprint_of(sites)
    sites.settled("plan", Message({"fingerprint": fingerprint.as_json(), "cases": cases}))
    run = tmp_path / "work" / "SITE0" / "runs" / JOB.run_id
    with (
        nnunet_environment(run / "raw", run / "planning", run / "results", 1),
        pytest.raises(SiteFailed, match="3d_lowres"),
    ):
        make_plan(fingerprint, NAME, run / "planning", "3d_lowres", PROFILE)
