"""What the lines of a run's events mean to others."""

from typing import Any
from uuid import UUID

import pytest
from flip_contracts.base import ModelId, ProjectId, RunId
from flip_contracts.scheduler import RunAssigned
from flip_contracts.trainer_node import PlanAgreed, TrustLeftOut
from flip_trainer_node import domain, telling
from flip_trainer_node.attempts import JobSubmitted

RUN = RunAssigned(
    run_id=RunId(UUID(int=1)),
    project_id=ProjectId(UUID(int=2)),
    model_id=ModelId(UUID(int=3)),
    net="net1",
    attempt=1,
    fencing=1,
    framework="nvflare",
    job="nnunet",
    trusts=frozenset({"KCH", "UCLH"}),
    payload={"mode": "training", "dataset_id": 7, "num_rounds": 2},
)


def line(kind: str, **facts: Any) -> telling.Line:
    return {"seq": 1, "attempt": 1, "kind": kind, **facts}


def failed(**facts: Any) -> telling.Line:
    return line("failed", **({"words": "", "differences": [], "detail": "PlansDiffer: Jane"} | facts))


def differing(path: str, **values: str) -> dict[str, Any]:
    return {"path": path, "values": values}


@pytest.mark.requirement("NNU-2")
def test_where_plans_differ_is_told_to_the_scheduler_place_by_place_and_in_words() -> None:
    last = failed(
        reason="plans-differ",
        differences=[
            differing("/batch_size", KCH="4", UCLH="99"),
            *(differing(f"/{number}", KCH="1", UCLH="2") for number in range(24)),
        ],
    )
    [taken] = domain.take(domain.Attempt(), RUN)
    attempt = domain.evolve(domain.Attempt(), taken)
    attempt = domain.evolve(attempt, JobSubmitted(attempt_id=attempt.id, job="job", record={}))
    [closing] = telling.close(attempt, last)
    ended = domain.told(domain.evolve(attempt, closing))
    assert ended is not None
    assert (ended.outcome, ended.reason) == ("failed", "plans-differ")
    assert (ended.differences[0].path, ended.differences[0].values) == ("/batch_size", {"KCH": "4", "UCLH": "99"})
    assert len(ended.differences) == 20
    shown = "/batch_size (KCH: 4, UCLH: 99); /0 (KCH: 1, UCLH: 2); /1 (KCH: 1, UCLH: 2)"
    assert ended.detail == f"The Trusts differ at {shown}; and at 22 more."


@pytest.mark.requirement("RUN-4")
def test_a_trust_that_is_left_out_is_told_with_why_and_the_plan_is_of_the_others_alone() -> None:
    [left_out] = telling.tell(line("site-left-out", site="UCLH", reason="disk-full", operation="plan"), RUN)
    assert isinstance(left_out, TrustLeftOut)
    assert (left_out.trust, left_out.reason) == ("UCLH", "disk-full")
    [agreed] = telling.tell(line("plan-agreed", digest="d" * 64, sites=["KCH"]), RUN)
    assert isinstance(agreed, PlanAgreed)
    assert agreed.by_trust == {"KCH": "d" * 64}


@pytest.mark.parametrize("text", ["x" * 200, "line\nbreak", "<script>", "\u00e9", ""])
def test_what_a_trust_wrote_into_a_record_is_shown_only_if_it_is_short_and_plain(text: str) -> None:
    last = failed(reason="schemas-differ", differences=[differing(text, KCH=text, UCLH='["MR"]')])
    [told] = telling.differences(last)
    assert (told.path, told.values) == ("(not shown)", {"KCH": "(not shown)", "UCLH": '["MR"]'})


def test_what_the_hub_found_wrong_by_itself_is_told_in_its_words_alone() -> None:
    assert telling.why(failed(reason="job-unfit", words="fold_id: the model has no fold 2")) == (
        "fold_id: the model has no fold 2"
    )
    assert telling.why(failed(reason="internal-error", words="KeyError")) == "KeyError"
    silent = {"operation": "plan", "sites": {"KCH": {"code": "no-answer", "detail": "Jane"}}}
    assert telling.why(line("interrupted", reason="sites-silent", detail="Jane", **silent)) == (
        "plan failed at KCH: no-answer."
    )
