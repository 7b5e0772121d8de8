"""An attempt names one try at a run, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flip_nnunet.attempt import Attempt, checked_run_id


def attempt(**changes: Any) -> Attempt:
    given = {
        "run_id": "run-1",
        "number": 1,
        "trusts": ("KCH", "UCLH"),
        "run_folder": Path("/runs/run-1"),
        "job": {"run_id": "run-1"},
    }
    return Attempt(**(given | changes))


def test_an_attempt_has_one_token_and_another_one_has_another():
    assert attempt().token == attempt().token != attempt(number=2).token


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
