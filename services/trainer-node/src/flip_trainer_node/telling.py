"""From lines of a run's `events.jsonl` to what is said of the run. Pure."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flip_contracts.base import Message, Sha256, TrustCode
from flip_contracts.scheduler import BestRound, Checkpoint, RunAssigned
from flip_contracts.trainer_node import (
    ContributionExcluded,
    Difference,
    MetricReported,
    PlanAgreed,
    ResultIgnored,
    ResultsCollected,
    RoundComplete,
    Stage,
    StageReached,
    TrainingStarted,
    TrustLeftOut,
)

from flip_trainer_node import domain
from flip_trainer_node.domain import Attempt, results_name

Line = Mapping[str, Any]
LAST_WORDS = frozenset({"finished", "failed", "interrupted"})
"""The kinds of line after which an attempt tells no more."""


_STAGES: Mapping[str, Stage] = {
    "fingerprint": "fingerprint",
    "preprocessing": "preprocessing",
    "training-started": "training",
    "validating": "validating",
    "predicting": "predicting",
    "exported": "collecting",
}
"""The kinds of line that begin a stage."""


def tell(line: Line, run: RunAssigned) -> list[Message]:
    """What a line means to others. Lines that mean nothing to them give nothing; see also `round_complete`."""
    common = {"run_id": run.run_id, "project_id": run.project_id, "attempt": run.attempt}
    said: list[Message] = []
    if line["kind"] in _STAGES:
        said.append(StageReached(**common, stage=_STAGES[line["kind"]]))
    match line["kind"]:
        case "plan-agreed":
            by_trust: dict[TrustCode, Sha256] = {trust: line["digest"] for trust in line["sites"]}  # noqa: C420
            said.append(PlanAgreed(**common, plan_digest=line["digest"], by_trust=by_trust))
        case "site-left-out":
            said.append(TrustLeftOut(**common, trust=line["site"], reason=line["reason"]))
        case "training-started":
            said.append(TrainingStarted(**common, first_round=line["round"], rounds=line["rounds"]))
        case "contribution-excluded":
            excluded = ContributionExcluded(**common, trust=line["site"], round=line["round"], reason=line["reason"])
            said.append(excluded)
        case "result-ignored":
            ignored = ResultIgnored(**common, trust=line["site"], operation=line["operation"], reason=line["reason"])
            said.append(ignored)
        case "metric":
            point = MetricReported(
                **common,
                trust=line["site"],
                round=line["round"],
                name=line["name"],
                value=line["value"],
                x=line["x"],
                axis=line["axis"],
            )
            said.append(point)
        case "round-complete" if run.job == "nnunet":  # an app's metrics have lines of their own
            said.extend(
                MetricReported(**common, trust=trust, round=line["round"], name=name, value=value)
                for trust, site in sorted(line["sites"].items())
                for name, value in _numbers(site["metrics"])
            )
        case "predicted":
            said.extend(
                MetricReported(**common, trust=trust, round=0, name=f"{line['dataset']}/dice/{name}", value=value)
                for trust, site in sorted(line["sites"].items())
                for name, value in _means(site["scores"])
            )
        case _:
            pass
    return said


def _numbers(metrics: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Each metric that has a value; those by structure have its name behind theirs."""
    for name, value in sorted(metrics.items()):
        if isinstance(value, Mapping):
            yield from _numbers({f"{name}/{structure}": each for structure, each in value.items()})
        elif value is not None:
            yield name, float(value)


def _means(scores: Mapping[str, Any] | None) -> Iterator[tuple[str, float]]:
    """The mean Dice of each structure that the Trust tells one of."""
    dices: Mapping[str, Any] = {} if scores is None else scores["dice"]
    for name, dice in sorted(dices.items()):
        if dice is not None:
            yield name, dice["mean"]


def round_complete(line: Line, run: RunAssigned, object_: str, digest: Sha256, size_bytes: int) -> RoundComplete:
    """A round whose weights are stored; `digest` and size are of their file."""
    return RoundComplete(
        run_id=run.run_id,
        project_id=run.project_id,
        attempt=run.attempt,
        fencing=run.fencing,
        rounds=line["rounds"],
        checkpoint=Checkpoint(
            round=line["round"],
            object=object_,
            digest=line["digest"],
            score=line["standing"]["score"],
            best=_best(line, run),
        ),
        trusts=frozenset(line["sites"]),
        size_bytes=size_bytes,
        file_digest=digest,
    )


def _best(line: Line, run: RunAssigned) -> BestRound | None:
    """The best round so far: one of this attempt, or that with which the attempt began."""
    best, began = line["standing"]["best"], run.checkpoint
    if best is None:
        return None
    if began is None or best["round"] > began.round:
        return BestRound(object=domain.object_of_round(run, best["round"]), **best)
    return began.best if best["round"] < began.round else BestRound(object=began.object, **best)


def archive(line: Line) -> Path:
    """Where the finished run's results lie."""
    return Path(line["archive"])


def results_collected(
    run: RunAssigned, object_: str, digest: Sha256, size_bytes: int, seal: Sha256
) -> ResultsCollected:
    """Results that are stored."""
    return ResultsCollected(
        run_id=run.run_id,
        project_id=run.project_id,
        attempt=run.attempt,
        fencing=run.fencing,
        object=object_,
        name=results_name(run),
        digest=digest,
        size_bytes=size_bytes,
        seal=seal,
    )


def close(attempt: Attempt, line: Line) -> list[Message]:
    """How the attempt ends where this line is its last word. Nothing for all other lines."""
    match line["kind"]:
        case "finished":
            return domain.close(attempt, "collected", "finished")
        case "failed" | "interrupted" as outcome:
            return domain.close(attempt, outcome, line["reason"], why(line), differences(line))
        case _:
            return []


_MOST_DIFFERENCES, _SHOWN_IN_WORDS = 20, 3
_LONGEST_TOLD = 500
_SAFE = re.compile(r"[\w .,:;+/'\"(){}\[\]-]{1,120}", re.ASCII)
_NOT_SHOWN = "(not shown)"


def why(line: Line) -> str:
    """A failure for people: which Trusts failed, each with its reason code, or what the hub found wrong by itself.

    Never in a Trust's own words: they could hold what must not leave it.
    """
    if failures := line.get("sites"):
        told = ", ".join(f"{trust}: {failure['code']}" for trust, failure in sorted(failures.items()))
        return f"{line.get('operation', 'The run')} failed at {told}."
    if found := differences(line):
        more = len(line["differences"]) - _SHOWN_IN_WORDS
        shown = "; ".join(_in_words(each) for each in found[:_SHOWN_IN_WORDS])
        return f"The Trusts differ at {shown}" + (f"; and at {more} more." if more > 0 else ".")
    return line.get("words", "")[:_LONGEST_TOLD]


def differences(line: Line) -> tuple[Difference, ...]:
    """The first places where the Trusts' records differ. What a Trust wrote is shown only where it is short and plain.

    The records are schemas, plans and models: they have nothing of single cases.
    """
    return tuple(
        Difference(path=_safe(each["path"]), values={trust: _safe(value) for trust, value in each["values"].items()})
        for each in line.get("differences", [])[:_MOST_DIFFERENCES]
    )


def _safe(text: str) -> str:
    return text if _SAFE.fullmatch(text) else _NOT_SHOWN


def _in_words(difference: Difference) -> str:
    return f"{difference.path} ({', '.join(f'{trust}: {value}' for trust, value in sorted(difference.values.items()))})"
