"""A researcher's Flower app over a real net: the example."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from flip_apps.files import files_of
from flip_apps.testing import app_job, give_files, write_project
from flip_flower.testing import LocalNet
from flip_nnunet.testing.local_net import TRUSTS, wait_until

EXAMPLE = Path(__file__).parents[3] / "examples" / "segmentation-flower"
STUDIES = 4


@pytest.mark.parts
@pytest.mark.requirement("RUN-10", "FILE-5")
def test_an_app_without_a_server_app_trains_and_is_evaluated_at_every_trust_each_round(net: LocalNet):
    files = files_of(EXAMPLE)
    for seed, site in enumerate(TRUSTS):
        write_project(net.runs / site / "flower-app", STUDIES, seed)
    give_files(files, net.hub / "flower-app")

    net.wait_for_end(net.submit(app_job("flower-app", files, framework="flower")))

    told = net.events("flower-app")
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
