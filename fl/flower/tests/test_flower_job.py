"""A run brings no code, and an attempt is told from any other."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import pytest
from flip_flower.job import attempt_digest, make_app, read_attempt, write_attempt
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


def test_the_app_of_a_run_carries_no_code():
    with zipfile.ZipFile(io.BytesIO(make_app().content)) as files:
        assert sorted(files.namelist()) == [".info/CONTENT", "pyproject.toml"]


def test_the_app_is_the_same_for_every_run():
    assert make_app().sha256 == make_app().sha256


def test_an_attempt_is_read_as_it_was_written(tmp_path: Path):
    assert read_attempt(write_attempt(attempt(), tmp_path)) == attempt()


@pytest.mark.parametrize(
    "changes",
    [{"number": 2}, {"trusts": ("KCH",)}, {"run_folder": Path("/other")}, {"job": {"run_id": "run-1", "seed": 2}}],
)
def test_attempts_that_differ_in_anything_differ_by_digest(changes: dict[str, Any]):
    assert attempt_digest(attempt()) == attempt_digest(attempt()) != attempt_digest(attempt(**changes))
