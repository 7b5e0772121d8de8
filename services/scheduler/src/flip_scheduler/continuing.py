"""Going on from an earlier run: with which of its weights a run begins, or why it can't (RUN-9, NNU-9). Pure."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from flip_contracts.base import RunId
from flip_contracts.scheduler import AppPayload, Checkpoint, Continued, InferencePayload, TrainingPayload

Payload = TrainingPayload | InferencePayload | AppPayload

_ONE_NETWORK = ("model_configuration", "trainer_name", "fold_id")
"""The fields of a payload without which the weights would be another network's, or another training's."""


@dataclass(frozen=True, slots=True)
class Predecessor:
    """A run that another one may go on from. `rounds`: its completed rounds whose weights are kept, by number."""

    run_id: RunId
    payload: Mapping[str, Any]
    has_ended: bool
    rounds: Mapping[int, Checkpoint]


@dataclass(frozen=True, slots=True)
class Continuing:
    """That a run is to go on from another; `predecessor` is None where the project has none of that id."""

    predecessor: Predecessor | None


def continued(asked: Payload, continuing: Continuing | None) -> Continued | None:
    """What a run begins with that lacks nothing by `missing_of_start`; None where it begins anew."""
    if continuing is None or continuing.predecessor is None:
        return None
    rounds = continuing.predecessor.rounds
    last = asked.starting_fed_round - 1 if isinstance(asked, TrainingPayload) else max(rounds)
    return Continued(run_id=continuing.predecessor.run_id, checkpoint=rounds[last])


def missing_of_start(asked: Payload, continuing: Continuing | None) -> Iterable[dict[str, Any]]:
    """Why a run can't begin as it is asked for, a field at a time."""
    if continuing is None:
        if isinstance(asked, TrainingPayload) and asked.starting_fed_round:
            detail = "A run that goes on from no other begins with 0; `continues` says from which it does."
            yield payload_not_valid("payload.starting_fed_round", detail)
        return
    if isinstance(asked, InferencePayload):
        yield _not_valid("A prediction trains nothing; `checkpoint_path` says what it predicts with.")
        return
    before = continuing.predecessor
    if before is None or before.payload["mode"] != asked.mode:
        yield _not_valid("No run of this project with this id has trained the like.")
    elif not before.has_ended:
        yield _not_valid("It has not ended yet: stop it first.")
    elif not before.rounds:
        yield _not_valid("It has no completed round of its own whose weights are kept.")
    elif isinstance(asked, TrainingPayload):
        yield from _missing_of_training(asked, before)


def _missing_of_training(asked: TrainingPayload, before: Predecessor) -> Iterable[dict[str, Any]]:
    for field in _ONE_NETWORK:
        if getattr(asked, field) != before.payload[field]:
            yield payload_not_valid(f"payload.{field}", f"The run to go on from has {before.payload[field]}.")
    if asked.starting_fed_round - 1 not in before.rounds:
        may = _ranges({number + 1 for number in before.rounds})
        yield payload_not_valid("payload.starting_fed_round", f"The weights that are kept let it be {may}.")
    elif asked.starting_fed_round > asked.num_rounds:
        yield payload_not_valid("payload.starting_fed_round", f"Is above num_rounds, {asked.num_rounds}.")


def payload_not_valid(field: str, detail: str) -> dict[str, Any]:
    """What is told of a wrong field of a payload."""
    return {"code": "payload-not-valid", "detail": detail, "field": field}


def _not_valid(detail: str) -> dict[str, Any]:
    return {"code": "continues-not-valid", "detail": detail, "field": "continues"}


def _ranges(numbers: Collection[int]) -> str:
    """Such as `1 to 4, 7`."""
    ordered = sorted(numbers)
    ends = [one for one, following in pairwise(ordered) if following > one + 1]
    starts = [following for one, following in pairwise(ordered) if following > one + 1]
    ranges = zip([ordered[0], *starts], [*ends, ordered[-1]], strict=True)
    return ", ".join(f"{first}" if first == last else f"{first} to {last}" for first, last in ranges)
