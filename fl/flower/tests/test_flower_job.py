"""A run brings no code, and an attempt is told from any other."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import pytest
from flip_flower.job import Attempt, checked_run_id, make_app, read_attempt


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
    assert read_attempt(attempt().write(tmp_path)) == attempt()


@pytest.mark.parametrize(
    "changes",
    [{"number": 2}, {"trusts": ("KCH",)}, {"run_folder": Path("/other")}, {"job": {"run_id": "run-1", "seed": 2}}],
)
def test_attempts_that_differ_in_anything_differ_by_digest(changes: dict[str, Any]):
    assert attempt().digest == attempt().digest != attempt(**changes).digest


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"run_id": "../etc", "job": {"run_id": "../etc"}}, "run_id"),
        ({"run_id": "a b", "job": {"run_id": "a b"}}, "run_id"),
        ({"job": {"run_id": "another"}}, "job"),
        ({"number": 0}, "attempt"),
        ({"trusts": ()}, "trusts"),
        ({"run_folder": Path("relative")}, "run_folder"),
    ],
)
def test_a_malformed_attempt_is_refused_with_the_field_named(changes: dict[str, Any], field: str):
    with pytest.raises(ValueError, match=f"^{field}:"):
        attempt(**changes)


@pytest.mark.parametrize("run_id", ["../../etc", "run;reboot", "run --run other", ""])
def test_a_run_id_that_could_be_a_path_or_an_argument_is_refused(run_id: str):
    with pytest.raises(ValueError, match="run_id"):
        checked_run_id(run_id)
