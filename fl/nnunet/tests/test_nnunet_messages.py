"""What travels and what is kept: messages, digests, contributions, their mean, the store."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from flip_nnunet.differences import differences
from flip_nnunet.message import Message, SiteFailure, SitesFailed, settle, weights_digest
from flip_nnunet.store import FolderStore, RoundMissing
from flip_nnunet.weights import ContributionRefused, check_contribution, weighted_mean
from hypothesis import given, settings
from hypothesis import strategies as st

CURRENT = {"a.weight": np.zeros((2, 3), np.float32), "a.bias": np.zeros(2, np.float32)}


def reply(arrays: dict[str, np.ndarray] | None = None, **meta: object) -> Message:
    return Message({"round": 4, "cases": 12} | meta, CURRENT if arrays is None else arrays)


def test_a_message_survives_the_wire_bit_for_bit():
    sent = Message(
        {"deep": {"π": [1, 0.1, None]}},
        {"x/0": np.array([[math.pi, -0.0]]), "scalar": np.array(7, np.int64), "none": np.empty((0, 2), np.float32)},
    )
    got = Message.from_bytes(sent.to_bytes())
    assert got.meta == sent.meta
    assert weights_digest(got.arrays) == weights_digest(sent.arrays)


def test_a_pickled_array_is_never_read(tmp_path: Path):
    np.savez(tmp_path / "x.npz", meta=np.array([{"evil": print}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="pickle"):
        Message.from_bytes((tmp_path / "x.npz").read_bytes())


def test_one_site_s_failure_is_told_with_the_others_answers():
    with pytest.raises(SitesFailed) as failed:
        settle("describe", {"UCLH": Message({"cases": 3}), "KCH": SiteFailure("too-few-cases", "10").as_message()})
    assert failed.value.failures == {"KCH": SiteFailure("too-few-cases", "10")}
    assert failed.value.replies["UCLH"].meta == {"cases": 3}


@pytest.mark.parametrize("change", ["name", "dtype", "shape", "value"])
def test_the_digest_of_weights_sees_every_change(change: str):
    changed = {
        "name": {"b": np.zeros(2, np.float32)},
        "dtype": {"a": np.zeros(2, np.int32)},
        "shape": {"a": np.zeros((2, 1), np.float32)},
        "value": {"a": np.array([0, 1e-30], np.float32)},
    }[change]
    assert weights_digest({"a": np.zeros(2, np.float32)}) != weights_digest(changed)


@pytest.mark.requirement("NNU-4")
def test_a_sound_contribution_is_accepted():
    check_contribution(reply(), CURRENT, 4, 12)


@pytest.mark.requirement("NNU-4")
@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (reply(round=3), "wrong-round"),
        (reply(cases=1_000_000), "wrong-weight"),
        (reply(cases=-12), "wrong-weight"),
        (reply({"a.weight": CURRENT["a.weight"]}), "wrong-tensors"),
        (reply({**CURRENT, "extra": np.zeros(1, np.float32)}), "wrong-tensors"),
        (reply({**CURRENT, "a.bias": np.zeros(1, np.float32)}), "wrong-shape"),
        (reply({**CURRENT, "a.bias": np.zeros(2)}), "wrong-dtype"),
        (reply({**CURRENT, "a.bias": np.array([0, np.nan], np.float32)}), "not-finite"),
        (reply({**CURRENT, "a.bias": np.array([0, np.inf], np.float32)}), "not-finite"),
    ],
)
def test_a_contribution_that_would_spoil_the_mean_is_refused(bad: Message, code: str):
    with pytest.raises(ContributionRefused) as refused:
        check_contribution(bad, CURRENT, 4, 12)
    assert refused.value.code == code


@pytest.mark.requirement("NNU-4")
@settings(deadline=None)
@given(st.permutations(["A", "B", "C", "D"]), st.integers(0, 2**31))
def test_the_mean_has_the_same_bits_whoever_answers_first(order: list[str], seed: int):
    rng = np.random.default_rng(seed)
    weights = {site: {"w": rng.normal(size=50).astype(np.float32)} for site in "ABCD"}
    factors = {site: float(rng.integers(1, 100)) for site in "ABCD"}
    mean = weighted_mean({site: weights[site] for site in order}, factors)
    assert weights_digest(mean) == weights_digest(weighted_mean(weights, factors))
    expected = np.average([weights[site]["w"] for site in "ABCD"], axis=0, weights=[factors[site] for site in "ABCD"])
    np.testing.assert_allclose(mean["w"], expected, rtol=1e-6, atol=1e-7)
    assert mean["w"].dtype == np.float32


@pytest.mark.requirement("NNU-2")
def test_differences_name_the_path_and_each_site_s_value():
    records = {
        "KCH": {"a": [1, {"b": 2}], "only": True, "same": [0]},
        "UCLH": {"a": [1, {"b": 3}], "same": [0]},
    }
    assert differences(records) == [
        {"path": "/a/1/b", "values": {"KCH": 2, "UCLH": 3}},
        {"path": "/only", "values": {"KCH": True, "UCLH": None}},
    ]


@pytest.mark.requirement("NNU-9")
def test_a_stored_round_comes_back_bit_for_bit_or_not_at_all(tmp_path: Path):
    store = FolderStore(tmp_path)
    weights = {"w": np.random.default_rng(0).normal(size=100).astype(np.float32)}
    assert store.save_round(3, weights) == weights_digest(weights)
    assert weights_digest(store.load_round(3)) == weights_digest(weights)
    with pytest.raises(RoundMissing, match="round 2"):
        store.load_round(2)
    np.savez(tmp_path / "rounds" / "round_00003.npz", w=weights["w"] + 1)
    with pytest.raises(RoundMissing, match="round 3"):
        store.load_round(3)


def test_a_store_keeps_as_many_rounds_as_it_was_told(tmp_path: Path):
    store = FolderStore(tmp_path, keep_rounds=2)
    for number in range(4):
        store.save_round(number, {"w": np.full(2, number)})
    assert sorted(file.stem for file in (tmp_path / "rounds").glob("*.npz")) == ["round_00002", "round_00003"]
