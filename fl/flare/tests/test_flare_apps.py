"""Researchers' NVFLARE apps over a real net: the examples of both kinds."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from flip_apps.files import files_of
from flip_apps.testing import app_job, give_files, tries_of, with_tries, write_project
from flip_flare.testing import LocalNet
from flip_nnunet.testing.local_net import TRUSTS, wait_until

pytestmark = pytest.mark.parts

EXAMPLES = Path(__file__).parents[3] / "examples"
STUDIES = 4


def run_app(net: LocalNet, run_id: str, files: dict[str, bytes]) -> list[dict[str, Any]]:
    """Train an app over both Trusts; returns what the run told."""
    for seed, site in enumerate(TRUSTS):
        write_project(net.runs / site / run_id, STUDIES, seed)
    give_files(files, net.hub / run_id)
    net.wait_for_end(net.submit(app_job(run_id, files)))
    return net.events(run_id)


def weights_of(told: list[dict[str, Any]]) -> list[str]:
    """The digest of each round's weights."""
    return [line["digest"] for line in told if line["kind"] == "round-complete"]


def validation_in(finished: dict[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    with zipfile.ZipFile(finished["archive"]) as results:
        [found] = [name for name in results.namelist() if name.endswith("cross_val_results.json")]
        return json.loads(results.read(found))


@pytest.fixture(scope="module")
def told(net: LocalNet) -> list[dict[str, Any]]:
    """What the run of the example of executors told."""
    return run_app(net, "executor-app", files_of(EXAMPLES / "segmentation-executor") | {"helpers/__init__.py": b""})


@pytest.mark.requirement("RUN-10")
def test_an_app_of_executors_trains_and_every_model_is_validated_at_every_trust(
    net: LocalNet, told: list[dict[str, Any]]
):
    assert told[-1]["kind"] == "finished", told[-1]
    assert [line["round"] for line in told if line["kind"] == "round-complete"] == [0, 1]
    found = validation_in(told[-1])
    models = {"SRV_FL_global_model.pt", "SRV_best_FL_global_model.pt", *TRUSTS}
    assert {site: set(by_model) for site, by_model in found.items()} == dict.fromkeys(TRUSTS, models)
    assert all(found[site]["SRV_FL_global_model.pt"]["val_dice"] > 0.5 for site in TRUSTS)
    points = {(line["site"], line["name"], line["axis"], line["x"]) for line in told if line["kind"] == "metric"}
    assert {(site, "TRAIN_LOSS", "epoch", 6.0) for site in TRUSTS} <= points
    assert {(site, "VAL_DICE", "round", 1.0) for site in TRUSTS} <= points
    wait_until(lambda: not net.of_runs(), "nothing left of the run")


@pytest.mark.requirement("RUN-11")
def test_an_app_that_tries_to_get_out_of_its_box_gets_nowhere_and_trains_the_very_weights(
    net: LocalNet, told: list[dict[str, Any]]
):
    files, line = files_of(EXAMPLES / "segmentation-executor"), 'self._report({"VAL_DICE": '
    hostile = with_tries(files, "trainer.py", line, 'self._report({"TRIES": tries}, None, fl_ctx)', net)

    tried = run_app(net, "hostile-app", hostile)

    assert tried[-1]["kind"] == "finished", tried[-1]
    assert weights_of(tried) == weights_of(told)
    tries = {(line["site"], line["value"]) for line in tried if line.get("name") == "TRIES"}
    assert tries == {(site, float(tries_of(hostile))) for site in TRUSTS}


@pytest.mark.requirement("RUN-10")
def test_an_app_of_monai_algorithms_trains_and_every_model_is_validated_at_every_trust(net: LocalNet):
    told = run_app(net, "monai-app", files_of(EXAMPLES / "segmentation-monai"))

    assert told[-1]["kind"] == "finished", told[-1]
    found = validation_in(told[-1])
    models = {"SRV_FL_global_model.pt", "SRV_best_FL_global_model.pt", *TRUSTS}
    assert {site: set(by_model) for site, by_model in found.items()} == dict.fromkeys(TRUSTS, models)
    assert {line["site"] for line in told if line["kind"] == "metric"} == set(TRUSTS)
