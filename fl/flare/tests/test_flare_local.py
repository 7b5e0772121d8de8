"""The examples train on a researcher's own machine, by the platform's code and without a platform."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from flip_apps.testing import train_at_home

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.mark.requirement("RUN-10")
@pytest.mark.parametrize("example", ["segmentation-executor", "segmentation-monai"])
def test_an_example_trains_in_local_development(example: str, tmp_path: Path):
    ended = train_at_home("flip_flare.local", EXAMPLES / example, tmp_path)
    assert ended.returncode == 0, ended.stderr
    told = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [line["round"] for line in told if line["kind"] == "round-complete"] == [0, 1]
    assert Path(told[-1]["archive"]).is_file()


def test_without_local_dev_it_is_said_what_to_set(tmp_path: Path):
    command = [
        sys.executable,
        "-m",
        "flip_flare.local",
        str(EXAMPLES / "segmentation-executor"),
        "--work",
        str(tmp_path),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 2
    assert "LOCAL_DEV" in ended.stderr
