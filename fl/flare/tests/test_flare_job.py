"""A job is configuration only, and names nothing that a site does not allow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from flip_flare.executor import NnunetExecutor
from flip_flare.job import write_job
from flip_nnunet.attempt import Attempt


def attempt(**changes: Any) -> Attempt:
    given = {
        "run_id": "run-1",
        "number": 1,
        "trusts": ("KCH", "UCLH"),
        "run_folder": Path("/runs/run-1"),
        "job": {"run_id": "run-1"},
    }
    return Attempt(**(given | changes))


def test_a_job_carries_no_code_and_names_only_this_packages_classes(tmp_path: Path):
    folder = write_job(attempt(), tmp_path)
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert files == ["app/config/config_fed_client.json", "app/config/config_fed_server.json", "meta.json"]
    texts = "".join((folder / name).read_text() for name in files)
    paths = [line.split('"')[3] for line in texts.splitlines() if line.strip().startswith('"path"')]
    assert sorted(paths) == ["flip_flare.controller.NnunetController", "flip_flare.executor.NnunetExecutor"]


def test_a_job_goes_to_its_own_trusts_only_and_needs_them_all(tmp_path: Path):
    meta = json.loads((write_job(attempt(trusts=("UCLH",)), tmp_path) / "meta.json").read_text())
    assert meta["deploy_map"] == {"app": ["server", "UCLH"]}
    assert meta["min_clients"] == 1


def test_the_same_attempt_gives_the_same_job(tmp_path: Path):
    first, again = write_job(attempt(), tmp_path / "a"), write_job(attempt(), tmp_path / "b")
    for path in first.rglob("*.json"):
        assert path.read_bytes() == (again / path.relative_to(first)).read_bytes()


def interval_of(number_of_trusts: int, folder: Path) -> float:
    trusts = tuple(f"T{number}" for number in range(number_of_trusts))
    written = write_job(attempt(trusts=trusts), folder)
    return json.loads((written / "app/config/config_fed_server.json").read_text())["server"]["task_request_interval"]


def test_a_trust_asks_for_its_next_task_many_times_a_second_but_many_trusts_no_more_often_together(tmp_path: Path):
    """FLARE's own clients wait 2 s, which doubles a job of short rounds."""
    assert interval_of(1, tmp_path) == interval_of(2, tmp_path) == 0.05
    assert [number / interval_of(number, tmp_path) for number in (2, 8, 100)] == pytest.approx([40] * 3)


@pytest.mark.parametrize("run_id", ["../../etc", "run;reboot", "run --run other", ""])
def test_a_site_starts_no_trainer_for_a_run_id_that_could_be_a_path_or_an_argument(run_id: str):
    with pytest.raises(ValueError, match="run_id"):
        NnunetExecutor(run_id)
