"""The federated fingerprint is the pooled one, and nothing of a case leaves a site."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from flip_nnunet.fingerprint import HISTOGRAM_SIZE, Ask, Fingerprint, federated_fingerprint
from flip_nnunet.job import Job
from flip_nnunet.message import Json, Message, SiteFailed, digest
from flip_nnunet.nnunet import nnunet_environment
from flip_nnunet.orders import BINS
from flip_nnunet.payload import DEMO, TrainingPayload
from flip_nnunet.plan import make_plan
from flip_nnunet.worker import Worker
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape
from synthetic import Family, write_dataset
from workers_here import WorkersHere

NAME = "Dataset005_test"
VOXELS = 10**5
PROFILE = DEMO.model_copy(update={"intensity_voxels": VOXELS})
PAYLOAD = TrainingPayload.model_validate(
    {"mode": "training", "num_rounds": 1, "dataset_id": 5, "model_configuration": "2d", "device": "cpu"}
)
JOB = Job(run_id="run", dataset_name=NAME, payload=PAYLOAD, profile=PROFILE, seed=1)

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
    dataset = write_dataset(folder / "nnUNet_raw", NAME, *families)
    with nnunet_environment(folder / "nnUNet_raw", folder / "pre", folder / "res", 1):
        extractor = DatasetFingerprintExtractor(NAME, 1)
        extractor.num_foreground_voxels_for_intensitystats = VOXELS
        extractor.show_progress_bar = False
        threads = SimpleNamespace(Pool=ThreadPool)  # its own spawned processes would only import torch once more
        with mock.patch.object(multiprocessing, "get_context", return_value=threads):
            found = extractor.run()
    assert len(found["spacings"]) == len(list((dataset / "labelsTr").iterdir()))
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
            assert array.shape[-1] in (BINS, HISTOGRAM_SIZE)
        numbers = set(_numbers(reply.meta))
        assert not numbers & _case_values(tmp_path / f"data{site[-1]}"), (operation, reply.meta)
        if operation in ("geometry", "refine"):
            assert set(reply.meta) <= {"moments"}
    assert {operation for operation, _, _ in sites.answers} >= {"describe", "statistics", "geometry"}


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


# --- many federations, by their geometry alone ----------------------------------------------------------------------

Geometry = list[tuple[np.ndarray, np.ndarray]]
BASES = {
    "isotropic": ((1.0, 1.0, 1.0), (160, 160, 160)),
    "thick slices first": ((5.0, 0.8, 0.8), (24, 320, 320)),
    "thick slices last": ((0.7, 0.7, 3.0), (300, 300, 90)),
    "cine": ((10.0, 1.5, 1.5), (12, 256, 220)),
}


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    spacing, shape = BASES[draw(st.sampled_from(sorted(BASES)))]
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sites: Geometry = []
    for cases in draw(st.lists(st.integers(1, 24), min_size=2, max_size=5)):
        size = rng.uniform(0.6, 1.6, (cases, 1))
        spacings = np.float32(np.array(spacing) * size * rng.uniform(0.9, 1.1, (cases, 3))).astype(np.float64)
        sizes = rng.uniform(0.6, 1.5, (cases, 1)) * rng.uniform(0.9, 1.1, (cases, 3))
        sites.append((spacings, np.maximum(1, np.round(np.array(shape) * sizes)).astype(np.int64)))  # pyright: ignore[reportArgumentType]
    return sites


@pytest.mark.requirement("NNU-1")
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(geometries())
def test_the_synopsis_tells_nnunet_what_all_cases_would(
    site_with_geometry: Callable[[Geometry], WorkersHere], geometry: Geometry
):
    sites = site_with_geometry(geometry)
    cases = sum(len(spacings) for spacings, _ in geometry)
    found = federated_fingerprint(asking(sites), cases, 1, cases)
    spacings = np.concatenate([spacings for spacings, _ in geometry])
    shapes = np.concatenate([shapes for _, shapes in geometry])

    def target(all_spacings: object, all_shapes: object) -> np.ndarray:
        planner = object.__new__(ExperimentPlanner)
        planner.overwrite_target_spacing = None  # pyright: ignore[reportAttributeAccessIssue]
        planner.anisotropy_threshold = 3
        planner.dataset_fingerprint = {"spacings": all_spacings, "shapes_after_crop": all_shapes}
        return planner.determine_fullres_target_spacing()

    expected_target = target(list(spacings), list(shapes))
    content = found.content
    np.testing.assert_array_equal(target(content["spacings"], content["shapes_after_crop"]), expected_target)
    np.testing.assert_array_equal(np.median(content["spacings"], 0), np.median(spacings, 0))
    np.testing.assert_array_equal(np.median(content["shapes_after_crop"], 0), np.median(shapes, 0))
    new_shapes = [
        compute_new_shape(shape, spacing, expected_target) for shape, spacing in zip(shapes, spacings, strict=True)
    ]
    np.testing.assert_array_equal(found.median_new_shape, np.median(new_shapes, 0))


@pytest.fixture
def site_with_geometry(tmp_path: Path) -> Callable[[Geometry], WorkersHere]:
    """Sites whose drawn statistics are the given geometry and one voxel a case."""

    def make(geometry: Geometry) -> WorkersHere:
        sites = WorkersHere({}, tmp_path, JOB)
        for number, (spacings, shapes) in enumerate(geometry):
            data, work = tmp_path / f"data{number}", tmp_path / f"work{number}"
            if not data.exists():
                write_dataset(data / "nnUNet_raw", "Dataset005_x", Family(number, 1, shape=(8, 8, 8)))
            drawn = work / "runs" / JOB.run_id / "statistics"
            drawn.mkdir(parents=True, exist_ok=True)
            np.savez(drawn / "geometry.npz", spacings=spacings, shapes=shapes, relative_sizes=np.ones(len(shapes)))
            (drawn / "channel_0.float32").write_bytes(np.arange(len(shapes), dtype=np.float32).tobytes())
            sites.workers[f"SITE{number}"] = _DrawnWorker(f"SITE{number}", data, work, JOB, 1)
        return sites

    return make


class _DrawnWorker(Worker):
    """A worker whose images have been read before."""

    def statistics(self, message: Message) -> Message:
        summaries = list(self._statistics().summaries())
        return Message(
            {"channels": [summary for summary, _ in summaries]},
            {f"histogram/{i}": histogram for i, (_, histogram) in enumerate(summaries) if histogram is not None},
        )


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
