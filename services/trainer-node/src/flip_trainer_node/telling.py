"""From lines of a run's `events.jsonl` to what is said of the run. Pure."""

import math
from collections.abc import Mapping
from typing import Any

from flip_contracts.base import Message
from flip_contracts.scheduler import Checkpoint, RunAssigned
from flip_contracts.trainer_node import (
    MetricReported,
    PlanAgreed,
    ResultsCollected,
    RoundComplete,
    StageReached,
    TrainingStarted,
)

Line = Mapping[str, Any]


def tell(line: Line, run: RunAssigned) -> list[Message]:
    """What a line means to others. Lines that mean nothing to them give nothing; see also `round_complete`."""
    common = {"run_id": run.run_id, "project_id": run.project_id, "attempt": run.attempt}
    match line["kind"]:
        case "stage":
            return [StageReached(**common, stage=line["stage"])]
        case "plan":
            return [PlanAgreed(**common, plan_digest=line["digest"], by_trust=line["by_site"])]
        case "training":
            return [TrainingStarted(**common, first_round=line["first_round"], rounds=line["rounds"])]
        case "round":
            return [
                MetricReported(**common, trust=trust, round=line["round"], name=name, value=value)
                for trust, metrics in sorted(line["metrics"].items())
                for name, value in sorted(metrics.items())
                if isinstance(value, int | float) and math.isfinite(value)
            ]
        case _:
            return []


def round_complete(line: Line, run: RunAssigned, checkpoint: Checkpoint) -> RoundComplete:
    """A round whose weights are stored."""
    return RoundComplete(
        run_id=run.run_id,
        project_id=run.project_id,
        attempt=run.attempt,
        fencing=run.fencing,
        rounds=run.payload["num_rounds"],
        checkpoint=checkpoint,
        trusts=frozenset(line["metrics"]),
    )


def results_collected(run: RunAssigned, object_: str, name: str, digest: str, size_bytes: int) -> ResultsCollected:
    """Results that are stored."""
    return ResultsCollected(
        run_id=run.run_id,
        project_id=run.project_id,
        attempt=run.attempt,
        fencing=run.fencing,
        object=object_,
        name=name,
        digest=digest,
        size_bytes=size_bytes,
    )


def why(line: Line) -> str:
    """The detail of a failure, for people: the failed Trusts with their reason codes, never their texts.

    A Trust's own text could hold what must not leave it.
    """
    sites = {trust: failure["code"] for trust, failure in line.get("sites", {}).items()}
    told = ", ".join(f"{trust}: {code}" for trust, code in sorted(sites.items()))
    return f"{line['operation']} failed at {told}." if told else ""
