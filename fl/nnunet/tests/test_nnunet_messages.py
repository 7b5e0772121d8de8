"""What travels and what is kept: messages, digests, the store."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from flip_nnunet.differences import differences
from flip_nnunet.message import NO_ANSWER, Answers, Message, SiteFailure, SitesFailed, settle, weights_digest
from flip_nnunet.store import FolderStore, RoundMissing


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


def answered(*answers: tuple[str, Message]) -> Answers:
    yield from answers


def test_every_site_that_reports_a_failure_is_named():
    failure = SiteFailure("too-few-cases", "10")
    with pytest.raises(SitesFailed) as failed:
        settle(
            "describe",
            answered(("UCLH", failure.as_message()), ("RJ1", Message({"cases": 3})), ("KCH", failure.as_message())),
        )
    assert failed.value.failures == {"KCH": failure, "UCLH": failure}


def test_a_site_that_is_gone_ends_the_waiting_for_the_others():
    def answers() -> Answers:
        yield "KCH", SiteFailure(NO_ANSWER, "gone").as_message()
        pytest.fail("waited for UCLH, too")

    with pytest.raises(SitesFailed, match="KCH: no-answer"):
        settle("preprocess", answers())


@pytest.mark.parametrize("failure", ["Jane Doe", {"code": "Jane Doe", "detail": ""}, {"code": "x"}, {"code": 7}, None])
def test_a_failure_without_a_reason_code_is_told_as_a_malformed_answer(failure: object):
    with pytest.raises(SitesFailed) as failed:
        settle("describe", answered(("KCH", Message({"failure": failure}))))
    assert failed.value.failures["KCH"].code == "malformed-answer"
    assert "Jane" not in str(failed.value)


def test_replies_come_in_the_order_of_names():
    assert list(settle("stop", answered(("UCLH", Message()), ("KCH", Message())))) == ["KCH", "UCLH"]


@pytest.mark.parametrize("change", ["name", "dtype", "shape", "value"])
def test_the_digest_of_weights_sees_every_change(change: str):
    changed = {
        "name": {"b": np.zeros(2, np.float32)},
        "dtype": {"a": np.zeros(2, np.int32)},
        "shape": {"a": np.zeros((2, 1), np.float32)},
        "value": {"a": np.array([0, 1e-30], np.float32)},
    }[change]
    assert weights_digest({"a": np.zeros(2, np.float32)}) != weights_digest(changed)


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
