"""The file of events keeps its order and its whole lines through crashes."""

from __future__ import annotations

from pathlib import Path

import pytest
from flip_nnunet.events import EVENTS_FILE, EventLog, read_events


def test_a_later_attempt_goes_on_with_the_next_number(tmp_path: Path):
    with EventLog(tmp_path, attempt=1) as first:
        first.tell({"kind": "started"})
        first.tell({"kind": "interrupted"})
    with EventLog(tmp_path, attempt=2) as second:
        second.tell({"kind": "started"})
    assert [(event["seq"], event["attempt"], event["kind"]) for event in read_events(tmp_path)] == [
        (1, 1, "started"),
        (2, 1, "interrupted"),
        (3, 2, "started"),
    ]


def test_a_line_torn_by_a_crash_is_cut_and_its_number_used_again(tmp_path: Path):
    with EventLog(tmp_path, attempt=1) as log:
        log.tell({"kind": "started"})
    with (tmp_path / EVENTS_FILE).open("ab") as file:
        file.write(b'{"seq": 2, "kind": "rou')
    assert [event["seq"] for event in read_events(tmp_path)] == [1]
    with EventLog(tmp_path, attempt=2) as log:
        log.tell({"kind": "started"})
    assert [(event["seq"], event["attempt"]) for event in read_events(tmp_path)] == [(1, 1), (2, 2)]


def test_a_reader_gets_only_what_it_has_not_seen(tmp_path: Path):
    assert read_events(tmp_path) == []
    with EventLog(tmp_path, attempt=1) as log:
        for number in range(5):
            log.tell({"kind": "round", "round": number})
        assert [event["round"] for event in read_events(tmp_path, after=3)] == [3, 4]


def test_a_number_that_is_not_finite_is_refused_and_leaves_no_line(tmp_path: Path):
    with EventLog(tmp_path, attempt=1) as log:
        with pytest.raises(ValueError, match="JSON compliant"):
            log.tell({"kind": "metric", "value": float("nan")})
        log.tell({"kind": "started"})
    assert [event["seq"] for event in read_events(tmp_path)] == [1]
