"""A researcher's Flower app over a real net: the example."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from flip_apps.files import files_of
from flip_apps.testing import app_job, give_files, tries_of, with_tries, write_project
from flip_flower.testing import LocalNet
from flip_nnunet.testing.local_net import TRUSTS, wait_until

pytestmark = pytest.mark.parts

EXAMPLE = Path(__file__).parents[3] / "examples" / "segmentation-flower"
STUDIES = 4


def run_app(net: LocalNet, run_id: str, files: dict[str, bytes]) -> list[dict[str, Any]]:
    """Train an app over both Trusts; returns what the run told."""
    for seed, site in enumerate(TRUSTS):
        write_project(net.runs / site / run_id, STUDIES, seed)
    give_files(files, net.hub / run_id)
    net.wait_for_end(net.submit(app_job(run_id, files, framework="flower")))
    return net.events(run_id)


def weights_of(told: list[dict[str, Any]]) -> list[str]:
    """The digest of each round's weights."""
    return [line["digest"] for line in told if line["kind"] == "round-complete"]


@pytest.fixture(scope="module")
def told(net: LocalNet) -> list[dict[str, Any]]:
    """What the run of the example told."""
    return run_app(net, "flower-app", files_of(EXAMPLE))


@pytest.mark.requirement("RUN-10", "FILE-5")
def test_an_app_without_a_server_app_trains_and_is_evaluated_at_every_trust_each_round(
    net: LocalNet, told: list[dict[str, Any]]
):
    assert told[-1]["kind"] == "finished", told[-1]
    assert [line["round"] for line in told if line["kind"] == "round-complete"] == [0, 1]
    points = {(line["site"], line["name"], line["axis"], line["x"]) for line in told if line["kind"] == "metric"}
    losses = {(site, "TRAIN_LOSS", "epoch", float(epoch)) for site in TRUSTS for epoch in range(1, 7)}
    assert points == losses | {(site, "VAL_DICE", "round", float(number)) for site in TRUSTS for number in (0, 1)}
    with zipfile.ZipFile(told[-1]["archive"]) as results:
        [name] = [each for each in results.namelist() if each.endswith("cross_val_results.json")]
        found = json.loads(results.read(name))
        assert [name for name in results.namelist() if name.endswith("/best_FL_global_model.pt")]
    assert {site: set(by_model) for site, by_model in found.items()} == {
        site: {"SRV_FL_global_model.pt", "SRV_best_FL_global_model.pt"} for site in TRUSTS
    }
    assert all(found[site]["SRV_FL_global_model.pt"]["VAL_DICE"] > 0.5 for site in TRUSTS)
    wait_until(lambda: not net.of_runs(), "nothing left of the run")


@pytest.mark.requirement("RUN-11")
def test_an_app_that_tries_to_get_out_of_its_box_gets_nowhere_and_trains_the_very_weights(
    net: LocalNet, told: list[dict[str, Any]]
):
    line, report = 'content = RecordDict({"arrays"', 'metrics["TRIES"] = tries'
    hostile = with_tries(files_of(EXAMPLE), "app/client_app.py", line, report, net)

    tried = run_app(net, "hostile-app", hostile)

    assert tried[-1]["kind"] == "finished", tried[-1]
    assert weights_of(tried) == weights_of(told)
    tries = {(line["site"], line["value"]) for line in tried if line.get("name") == "TRIES"}
    assert tries == {(site, float(tries_of(hostile))) for site in TRUSTS}
