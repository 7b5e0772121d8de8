"""The example trains on a researcher's own machine, by the platform's code and without a platform."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from flip_apps.testing import train_at_home

EXAMPLE = Path(__file__).parents[3] / "examples" / "segmentation-flower"


@pytest.mark.requirement("RUN-10")
def test_the_example_trains_in_local_development(tmp_path: Path):
    ended = train_at_home("flip_flower.local", EXAMPLE, tmp_path)
    assert ended.returncode == 0, ended.stderr
    told = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [line["round"] for line in told if line["kind"] == "round-complete"] == [0, 1]
    assert {line["name"] for line in told if line["kind"] == "metric"} == {"TRAIN_LOSS", "VAL_DICE"}
    assert Path(told[-1]["archive"]).is_file()
