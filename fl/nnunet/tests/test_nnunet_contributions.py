"""Which contributions count in a round, and the mean of those that do."""

from __future__ import annotations

import gc
import tracemalloc
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from flip_nnunet.aggregation import Aggregate, MeanNotFinite, TooFewContributions, WeightedMean, aggregate
from flip_nnunet.contribution import ContributionExcluded, RoundTerms, check_contribution
from flip_nnunet.job import Job
from flip_nnunet.message import NO_ANSWER, Answers, Message, SiteFailure, Weights, weights_digest
from flip_nnunet.payload import DEMO
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

PLAN = "5" * 64
SENT: Weights = {
    "a.weight": np.full((2, 3), 2, np.float32),
    "a.bias": np.ones(2, np.float32),
    "seen": np.array(5, np.int64),
}
META: dict[str, Any] = {
    "round": 4,
    "plan": PLAN,
    "cases": 12,
    "metrics": {"train_loss": -0.4, "dice": None, "dice_per_class": [0.5, None]},
    "state": "disk",
    "seconds": 3.5,
}


def terms(cases: Mapping[str, int] | None = None, weights: Weights = SENT) -> RoundTerms:
    return RoundTerms(4, PLAN, weights, {"KCH": 12} if cases is None else cases, largest_update=10.0)


def reply(arrays: Weights | None = None, **meta: object) -> Message:
    return Message(META | meta, SENT if arrays is None else arrays)


def without(field: str) -> Message:
    return Message({name: value for name, value in META.items() if name != field}, SENT)


@pytest.mark.requirement("NNU-4")
def test_a_sound_contribution_may_count():
    moved = {**SENT, "a.bias": np.array([1, 4], np.float32)}
    checked = check_contribution("KCH", reply(moved), terms())
    assert checked.contribution.cases == 12
    assert checked.update == pytest.approx(3 / np.sqrt(6 * 4 + 2))  # the counter is no weight
    assert check_contribution("KCH", reply(cases=3), terms()).contribution.cases == 3


@pytest.mark.requirement("NNU-4")
@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (reply(round=3), "wrong-round"),
        (reply(round="4"), "wrong-round"),
        (without("round"), "wrong-round"),
        (reply(plan="6" * 64), "wrong-plan"),
        (without("plan"), "wrong-plan"),
        (reply(cases=13), "wrong-weight"),
        (reply(cases=0), "wrong-weight"),
        (reply(cases=-12), "wrong-weight"),
        (reply(cases=True), "wrong-weight"),
        (reply(cases=float("nan")), "wrong-weight"),
        (reply(cases=float("inf")), "wrong-weight"),
        (without("metrics"), "malformed-answer"),
        (reply(metrics={"train_loss": float("nan")}), "malformed-answer"),
        (reply(metrics={"of Jane Doe": 0.5}), "malformed-answer"),
        (reply(metrics={"train_loss": "low"}), "malformed-answer"),
        (reply(state="somewhere"), "malformed-answer"),
        (reply(seconds=-1.0), "malformed-answer"),
        (reply({name: SENT[name] for name in ("a.weight", "seen")}), "wrong-tensors"),
        (reply({**SENT, "extra": np.zeros(1, np.float32)}), "wrong-tensors"),
        (reply({**SENT, "a.bias": np.ones(1, np.float32)}), "wrong-shape"),  # would be broadcast
        (reply({**SENT, "a.weight": np.full((3, 2), 2, np.float32)}), "wrong-shape"),
        (reply({**SENT, "a.bias": np.ones(2)}), "wrong-dtype"),
        (reply({**SENT, "a.bias": np.array([1, np.nan], np.float32)}), "not-finite"),
        (reply({**SENT, "a.bias": np.array([1, -np.inf], np.float32)}), "not-finite"),
        (reply({**SENT, "a.bias": np.array([1, 1e6], np.float32)}), "update-too-large"),
        (reply({**SENT, "a.bias": np.array([1, 3e38], np.float32)}), "update-too-large"),
    ],
)
def test_a_contribution_that_would_spoil_the_mean_is_excluded_with_a_reason(bad: Message, reason: str):
    with pytest.raises(ContributionExcluded) as excluded:
        check_contribution("KCH", bad, terms())
    assert excluded.value.failure.code == reason


@pytest.mark.requirement("NNU-4")
@pytest.mark.parametrize("value", [5.1, 1e300])
def test_the_bound_on_updates_holds_for_weights_near_zero_and_beyond_float64(value: float):
    sent: Weights = {"w": np.full(4, 1e-9)}
    check_contribution("KCH", reply({"w": np.full(4, 4.9)}), terms(weights=sent))
    with pytest.raises(ContributionExcluded, match="update-too-large"):
        check_contribution("KCH", reply({"w": np.full(4, value)}), terms(weights=sent))


# --- a round --------------------------------------------------------------------------------------------------------


def answered(contributions: Mapping[str, Message]) -> Answers:
    yield from contributions.items()


def of(site_weights: Mapping[str, float], cases: Mapping[str, int] | None = None) -> dict[str, Message]:
    """Each site's contribution: a tensor of one value."""
    return {
        site: reply({"w": np.full(3, value, np.float32)}, cases=(cases or {}).get(site, 12))
        for site, value in site_weights.items()
    }


def averaged(
    contributions: Mapping[str, Message],
    cases: Mapping[str, int],
    factors: Mapping[str, float] | None = None,
    minimum: int | None = None,
) -> tuple[Aggregate, dict[str, str]]:
    """The aggregate, and why sites were excluded."""
    excluded: dict[str, str] = {}
    sent: Weights = {"w": np.ones_like(contributions[min(cases)].arrays["w"])}
    found = aggregate(
        answered(contributions),
        terms(cases, sent),
        factors or {},
        len(cases) if minimum is None else minimum,
        lambda site, why: excluded.update({site: why.code}),
    )
    return found, excluded


@pytest.mark.requirement("FILE-4")
@pytest.mark.parametrize(
    ("factors", "expected", "shares"),
    [
        ({}, (10 * 1 + 30 * 2 + 60 * 4) / 100, (0.1, 0.3, 0.6)),
        ({"KCH": 3.0}, (30 * 1 + 30 * 2 + 60 * 4) / 120, (0.25, 0.25, 0.5)),
        ({"RJ1": 0.0}, (10 * 1 + 60 * 4) / 70, (1 / 7, 0.0, 6 / 7)),
        ({"KCH": 0.0, "RJ1": 0.0}, 4.0, (0.0, 0.0, 1.0)),
    ],
)
def test_the_mean_is_that_of_cases_times_aggregation_weights(
    factors: dict[str, float], expected: float, shares: tuple[float, ...]
):
    cases = {"KCH": 10, "RJ1": 30, "UCLH": 60}
    found, _ = averaged(of({"KCH": 1, "RJ1": 2, "UCLH": 4}, cases), cases, factors)
    np.testing.assert_allclose(found.weights["w"], expected, rtol=1e-7)
    assert found.weights["w"].dtype == np.float32
    assert tuple(found.shares.values()) == pytest.approx(shares)


@pytest.mark.requirement("FILE-4")
@pytest.mark.parametrize("weight", [-0.5, float("nan"), float("inf"), "much", 1e308, 1000.1, 0.0009, 5e-324])
def test_a_wrong_aggregation_weight_is_refused_by_its_field_and_trust(weight: object):
    with pytest.raises(ValidationError) as refused:
        job(aggregation_weights={"KCH": weight})
    assert [error["loc"] for error in refused.value.errors()] == [("aggregation_weights", "KCH")]


@pytest.mark.requirement("FILE-4")
@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"aggregation_weights": {"RJ1": 1.0}}, "aggregation_weights: RJ1"),
        ({"aggregation_weights": {"KCH": 0.0, "UCLH": 0.0}}, "aggregation_weights: no site counts"),
        ({"minimum_sites": 3}, "minimum_sites: 3 of 2"),
    ],
)
def test_a_job_that_its_sites_can_not_do_is_refused_by_the_field(changes: dict[str, Any], problem: str):
    with pytest.raises(ValueError, match=problem):
        job(**changes).check_sites(["KCH", "UCLH"])


def job(**changes: object) -> Job:
    payload = {"mode": "training", "num_rounds": 1, "dataset_id": 5, "model_configuration": "2d"}
    fields = {"run_id": "r", "dataset_name": "Dataset005_x", "payload": payload, "profile": DEMO, "seed": 1}
    return Job.model_validate(fields | changes)


@pytest.mark.requirement("NNU-4")
@settings(deadline=None)
@given(st.permutations(["A", "B", "C", "D"]), st.integers(0, 2**31))
def test_the_mean_has_the_same_bits_whoever_answers_first(order: list[str], seed: int):
    rng = np.random.default_rng(seed)
    cases = {site: int(rng.integers(1, 100)) for site in "ABCD"}
    given_ = {site: reply({"w": rng.normal(size=200)}, cases=cases[site]) for site in "ABCD"}  # float64 shows each bit
    in_order, _ = averaged(given_, cases)
    shuffled, _ = averaged({site: given_[site] for site in order}, cases)
    assert weights_digest(shuffled.weights) == weights_digest(in_order.weights)
    expected = np.average([given_[site].arrays["w"] for site in "ABCD"], axis=0, weights=list(cases.values()))
    np.testing.assert_allclose(in_order.weights["w"], expected, rtol=1e-12, atol=1e-13)


@pytest.mark.requirement("NNU-4")
def test_an_excluded_contribution_leaves_no_trace_in_the_mean():
    cases = {"KCH": 12, "RJ1": 12, "UCLH": 12}
    given_ = of({"KCH": 1, "RJ1": 2, "UCLH": 4})
    given_["RJ1"].arrays["w"][1] = np.nan
    found, excluded = averaged(given_, cases, minimum=2)
    assert excluded == {"RJ1": "not-finite"}
    assert list(found.contributions) == list(found.shares) == ["KCH", "UCLH"]
    alone, _ = averaged(of({"KCH": 1, "UCLH": 4}), {"KCH": 12, "UCLH": 12})
    assert weights_digest(found.weights) == weights_digest(alone.weights)


@pytest.mark.requirement("NNU-4")
def test_a_silent_or_failed_site_is_excluded_with_its_code():
    failures = {
        "RJ1": SiteFailure(NO_ANSWER, "gone").as_message(),
        "UCLH": Message({"failure": {"code": "Jane Doe", "detail": "made up"}}),
    }
    _, excluded = averaged(of({"KCH": 1}) | failures, {"KCH": 12, "RJ1": 12, "UCLH": 12}, minimum=1)
    assert excluded == {"RJ1": NO_ANSWER, "UCLH": "malformed-answer"}


@pytest.mark.requirement("NNU-4")
def test_a_round_is_given_up_as_soon_as_it_can_not_reach_its_minimum():
    asked: list[str] = []

    def answers() -> Answers:
        for site in ("KCH", "RJ1", "UCLH"):
            asked.append(site)
            yield site, SiteFailure("too-few-cases", "10").as_message()

    everyone = {"KCH": 12, "RJ1": 12, "UCLH": 12}
    with pytest.raises(TooFewContributions, match="round 4: 2 contributions needed, 0 usable, 2 excluded") as few:
        aggregate(answers(), terms(everyone), {}, 2, lambda *_: None)
    assert asked == ["KCH", "RJ1"]
    assert set(few.value.excluded) == {"KCH", "RJ1"}


@pytest.mark.requirement("FILE-4")
def test_a_round_whose_only_usable_contributions_weigh_nothing_is_given_up():
    given_ = {**of({"KCH": 1}), "UCLH": reply(round=3)}
    with pytest.raises(TooFewContributions, match="weight 0"):
        averaged(given_, {"KCH": 12, "UCLH": 12}, {"KCH": 0.0}, minimum=1)


@pytest.mark.requirement("FILE-4")
@pytest.mark.parametrize(
    ("value", "dtype", "factor"),
    [(1.0, np.float32, 1e308), (1.7e308, np.float64, 12.0), (1.0, np.float32, 0.0), (3, np.int64, 1e308)],
)
def test_a_mean_that_is_no_finite_number_is_never_given(value: float, dtype: type[np.generic], factor: float):
    mean = WeightedMean(["KCH", "UCLH"])
    for site in ("KCH", "UCLH"):
        mean.add(site, {"w": np.full(2, value, dtype)}, factor)
    with pytest.raises(MeanNotFinite, match="w: its mean"):
        mean.finish()


@pytest.mark.requirement("FILE-4")
def test_a_round_whose_mean_is_not_finite_is_given_up():
    contributions = of({"KCH": 1, "UCLH": 2})
    with pytest.raises(MeanNotFinite):
        averaged(contributions, {"KCH": 12, "UCLH": 12}, {"KCH": 1e308})


# --- memory ---------------------------------------------------------------------------------------------------------

_TENSORS, _VALUES = 8, 50_000
_MODEL_BYTES = _TENSORS * _VALUES * 4


class Simulated:
    """Sites that make their answers when they are taken; knows how many are alive."""

    def __init__(self, order: list[str]) -> None:
        self._order = order
        self._made: list[weakref.ref[np.ndarray[Any, Any]]] = []
        self.most_alive = 0

    def answers(self) -> Answers:
        for site in self._order:
            yield site, self._answer(site)

    def _answer(self, site: str) -> Message:
        arrays: Weights = {f"t{number}": np.ones(_VALUES, np.float32) for number in range(_TENSORS)}
        if site == "S3":
            arrays["t5"][7] = np.nan
        self._made += [weakref.ref(array) for array in arrays.values()]
        alive = sum(made() is not None for made in self._made)
        self.most_alive = max(self.most_alive, alive // _TENSORS)
        return reply(arrays)


def peak_of(order: list[str]) -> tuple[int, int]:
    """The most memory (bytes) that a round over these sites took at once, and the most answers alive at once."""
    sent: Weights = {f"t{number}": np.ones(_VALUES, np.float32) for number in range(_TENSORS)}
    sites = Simulated(order)
    gc.collect()
    tracemalloc.start()
    try:
        aggregate(sites.answers(), terms(dict.fromkeys(order, 12), sent), {}, len(order) - 1, lambda *_: None)
        return tracemalloc.get_traced_memory()[1], sites.most_alive
    finally:
        tracemalloc.stop()


@pytest.mark.requirement("NNU-4")
def test_the_hub_s_memory_does_not_grow_with_the_number_of_sites():
    eight = [f"S{number}" for number in range(8)]
    few, _ = peak_of(eight[:2])
    many, alive = peak_of(eight)
    assert alive == 1
    assert many < few + _MODEL_BYTES / 4
    assert many < 4.5 * _MODEL_BYTES  # the sum in float64, one answer, and a tensor or two at work


@pytest.mark.requirement("NNU-4")
def test_only_what_came_before_its_turn_waits():
    _, alive = peak_of(["S1", "S2", "S0", "S5", "S4", "S6", "S7", "S3"])
    assert alive == 4 + 1  # S4 to S7 wait for S3, the last to answer
