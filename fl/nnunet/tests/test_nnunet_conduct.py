"""An attempt's last word says why it ended, and whether another one may succeed."""

from __future__ import annotations

import errno
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from flip_nnunet.aggregation import TooFewContributions
from flip_nnunet.attempt import Attempt
from flip_nnunet.conduct import SILENT, Interrupted, conduct
from flip_nnunet.federation import JobUnfit, PlansDiffer
from flip_nnunet.message import Answers, Message, SiteFailure

TRUSTS = ("KCH", "RJ1", "UCLH")
JOB: dict[str, Any] = {
    "run_id": "r",
    "dataset_name": "Dataset001_FLIP",
    "seed": 7,
    "payload": {"mode": "training", "num_rounds": 1, "dataset_id": 1, "model_configuration": "2d"},
    "profile": {"name": "test"},
}


class Sites:
    """Sites that all answer alike, or any question to which ends with an error; `missing` are silent."""

    def __init__(self, silent: set[str], answer: BaseException | SiteFailure, missing: Sequence[str] = ()) -> None:
        self._silent = silent
        self._answer = answer
        self._missing = missing

    def names(self) -> list[str]:
        return list(TRUSTS)

    def ask(self, operation: str, message: Message, sites: Sequence[str] | None = None) -> Answers:
        self._silent.update(self._missing)
        if isinstance(self._answer, BaseException):
            raise self._answer
        for site in TRUSTS if sites is None else sites:
            yield site, self._answer.as_message()


def last_word(
    folder: Path, answer: BaseException | SiteFailure, missing: Sequence[str] = (), **changes: Any
) -> dict[str, Any]:
    silent: set[str] = set()
    attempt = Attempt("r", 1, TRUSTS, folder, JOB | changes)
    with pytest.raises(BaseException):  # noqa: B017, PT011 - of every kind; what is told of it is looked at
        conduct(attempt, lambda _: Sites(silent, answer, missing), silent)
    told = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert told[0]["kind"] == "started"
    return told[-1]


@pytest.mark.requirement("FILE-4")
def test_a_job_that_its_trusts_can_not_do_ends_with_the_field_named(tmp_path: Path):
    attempt = Attempt("r", 1, TRUSTS, tmp_path, {**JOB, "aggregation_weights": {"GSTT": 1.0}})
    with pytest.raises(JobUnfit, match="aggregation_weights: GSTT"):
        conduct(attempt, lambda _: Sites(set(), SILENT), set())
    told = json.loads((tmp_path / "events.jsonl").read_text().splitlines()[-1])
    assert (told["kind"], told["reason"]) == ("failed", "job-unfit")


@pytest.mark.requirement("NNU-4")
def test_a_round_without_enough_contributions_ends_with_each_trust_s_reason(tmp_path: Path):
    excluded = TooFewContributions("round 3: ...", {"KCH": SiteFailure("not-finite", "head.weight")})
    last = last_word(tmp_path, excluded)
    assert (last["kind"], last["reason"], last["operation"]) == ("failed", "too-few-contributions", "train_round")
    assert last["sites"] == {"KCH": {"code": "not-finite", "detail": "head.weight"}}


def test_failures_of_sites_are_told_site_by_site(tmp_path: Path):
    last = last_word(tmp_path, SiteFailure("too-few-cases", "fewer than 10"))
    assert (last["kind"], last["reason"]) == ("failed", "sites-failed")
    assert last["sites"] == {site: {"code": "too-few-cases", "detail": "fewer than 10"} for site in TRUSTS}


@pytest.mark.requirement("RUN-5")
def test_silent_sites_interrupt_the_attempt_and_are_named(tmp_path: Path):
    last = last_word(tmp_path, SILENT, missing=["UCLH"])
    assert (last["kind"], last["reason"]) == ("interrupted", "sites-silent")
    assert list(last["sites"]) == ["UCLH"]


@pytest.mark.requirement("RUN-6")
@pytest.mark.parametrize("ended_by", [Interrupted("job-aborted", "told to"), SystemExit(1)], ids=["told", "exited"])
def test_an_aborted_attempt_is_interrupted_and_no_site_is_blamed(tmp_path: Path, ended_by: BaseException):
    last = last_word(tmp_path, ended_by, missing=["UCLH"])
    assert (last["kind"], last["reason"]) == ("interrupted", "job-aborted")
    assert "sites" not in last


def test_what_is_nobodys_doing_is_told_as_an_internal_error(tmp_path: Path):
    last = last_word(tmp_path, RuntimeError("a bug"))
    assert (last["kind"], last["reason"], last["detail"]) == ("failed", "internal-error", "RuntimeError: a bug")
    assert last["words"] == "RuntimeError"  # its text could be of anything


@pytest.mark.requirement("NNU-2")
def test_where_records_differ_is_told_with_each_sites_value_whatever_the_records_hold(tmp_path: Path):
    plans: dict[str, Any] = {"KCH": {"batch_size": 4, "same": 1}, "UCLH": {"batch_size": float("nan"), "same": 1}}
    last = last_word(tmp_path, PlansDiffer(plans))
    assert (last["kind"], last["reason"]) == ("failed", "plans-differ")
    assert last["differences"] == [{"path": "/batch_size", "values": {"KCH": "4", "UCLH": "NaN"}}]


def test_what_the_hub_itself_finds_wrong_is_told_in_its_words(tmp_path: Path):
    last = last_word(tmp_path, JobUnfit("fold_id: the model has no fold 2"))
    assert (last["reason"], last["words"], last["differences"]) == ("job-unfit", "fold_id: the model has no fold 2", [])


def test_a_full_disk_at_the_hub_is_told_as_that_and_another_attempt_may_succeed(tmp_path: Path):
    last = last_word(tmp_path, OSError(errno.ENOSPC, "No space left on device"))
    assert (last["kind"], last["reason"]) == ("interrupted", "hub-disk-full")


def test_a_malformed_job_fails_before_any_site_is_asked(tmp_path: Path):
    last = last_word(tmp_path, AssertionError("a site was asked"), seed="many")
    assert last["kind"] == "failed"
    assert "seed" in last["detail"]
