"""What was released stays readable: the gate on the real history, and on histories made for the purpose."""

import re
from pathlib import Path
from typing import Any

import orjson
import pytest
from flip_contracts import base, history
from flip_contracts.base import REGISTRY, Event, Message, Topic
from flip_contracts.catalogue import messages
from flip_contracts.command import main
from pydantic import create_model

REAL = Path(__file__).parents[1] / "history"
RELEASED = [
    pytest.param(type_name, example, id=f"{type_name}-{edition.released}-{number}")
    for type_name, editions in history.read(REAL).items()
    for edition in editions
    for number, example in enumerate(edition.examples, start=1)
]
PLACE = Topic("flip.test.place", key="name", owner="test", description="")
ELSEWHERE = Topic("flip.test.elsewhere", key="name", owner="test", description="")
BY_CITY = Topic("flip.test.place", key="city", owner="test", description="")
FIELDS: dict[str, Any] = {"name": (str, ...), "city": (str, ...)}


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test declares is forgotten with it."""
    monkeypatch.setattr(base, "REGISTRY", {})


def sample(
    fields: dict[str, Any] = FIELDS, topic: Topic = PLACE, version: int = 1, name: str = "Seen"
) -> type[Message]:
    """A message as some day's contracts declare it: each call is another day's."""
    base.REGISTRY.clear()
    return create_model(name, __base__=Event, __cls_kwargs__={"topic": topic, "version": version}, **fields)


def refusal(folder: Path, *today: type[Message]) -> list[str]:
    with pytest.raises(history.Incompatible) as refused:
        history.check(folder, today)
    return refused.value.lines


# --- the real history ----------------------------------------------------------------------------------------------


def test_todays_messages_keep_every_promise_of_the_history():
    history.check(REAL, messages())


@pytest.mark.requirement("AUD-3")
@pytest.mark.parametrize(("type_name", "example"), RELEASED)
def test_every_example_ever_released_is_read_today_with_all_its_fields(type_name: str, example: dict[str, Any]):
    message = REGISTRY[type_name].decode(orjson.dumps(example))
    assert example.keys() <= orjson.loads(message.encode()).keys()
    assert REGISTRY[type_name].decode(message.encode()) == message


# --- histories made for the purpose --------------------------------------------------------------------------------


def test_a_release_can_be_read_back(tmp_path: Path):
    assert history.release(tmp_path, "1", [sample()]) == [sample().type_name]
    (edition,) = history.read(tmp_path)[sample().type_name]
    assert (edition.released, edition.topic, edition.key) == ("1", "flip.test.place", "name")
    assert edition.examples == [{"city": "text", "name": "text"}]


def test_only_what_changed_gets_a_new_edition(tmp_path: Path):
    history.release(tmp_path, "1", [sample()])
    assert history.release(tmp_path, "2", [sample()]) == []
    grown = sample({**FIELDS, "since": (int | None, None)})
    assert history.release(tmp_path, "3", [grown]) == [grown.type_name]
    assert [edition.released for edition in history.read(tmp_path)[grown.type_name]] == ["1", "3"]


def test_a_text_about_a_message_is_no_change(tmp_path: Path):
    history.release(tmp_path, "1", [sample()])
    told = sample()
    told.__doc__ = "Told in other words."
    told.model_rebuild(force=True)
    assert history.release(tmp_path, "2", [told]) == []


def test_every_edition_must_be_kept_not_only_the_last(tmp_path: Path):
    history.release(tmp_path, "1", [sample()])
    file = tmp_path / f"{sample().type_name}.json"
    first = orjson.loads(file.read_bytes())
    narrowed = orjson.loads(orjson.dumps({**first[0], "released": "2"}))
    del narrowed["body"]["properties"]["city"], narrowed["examples"]
    narrowed |= {"examples": [], "body": {**narrowed["body"], "required": ["name"]}}
    file.write_bytes(orjson.dumps([*first, narrowed]))
    assert "city: is removed" in refusal(tmp_path, sample({"name": (str, ...)}))[0]


@pytest.mark.parametrize(
    ("today", "line"),
    [
        (lambda: sample({"name": (str, ...)}), "Seen.v1: city: is removed (since 1)"),
        (lambda: sample({**FIELDS, "since": (int, ...)}), "Seen.v1: since: is new and required (since 1)"),
        (lambda: sample({**FIELDS, "since": (int, ...)}), "Seen.v1: since: example 1 is no longer read (since 1)"),
        (lambda: sample(topic=ELSEWHERE), "its topic was flip.test.place, is flip.test.elsewhere (since 1)"),
        (lambda: sample(topic=BY_CITY), "its key was name, is city (since 1)"),
        (lambda: sample(version=2), "Seen.v1: is removed"),
        (lambda: sample(name="Noticed"), "Seen.v1: is removed"),
    ],
)
def test_it_names_the_message_and_what_is_wrong(tmp_path: Path, today: Any, line: str):
    history.release(tmp_path, "1", [sample()])
    assert any(line in each for each in refusal(tmp_path, today()))


def test_a_new_version_may_be_anything_while_the_old_one_stays(tmp_path: Path):
    history.release(tmp_path, "1", [sample()])
    history.check(tmp_path, [sample(), sample({"name": (int, ...)}, topic=ELSEWHERE, version=2)])


def test_what_was_not_released_yet_may_change_freely(tmp_path: Path):
    history.check(tmp_path, [sample({"name": (int, ...)})])


def test_a_message_that_the_gate_could_not_judge_later_is_refused_before_it_is_released(tmp_path: Path):
    fields = {**FIELDS, "pair": (tuple[int, str], ...)}
    assert "pair: the gate can't judge prefixItems" in refusal(tmp_path, sample(fields))[0]
    with pytest.raises(history.Incompatible):
        history.release(tmp_path, "1", [sample(fields)])
    assert list(tmp_path.iterdir()) == []


def test_a_broken_promise_can_not_be_released(tmp_path: Path):
    history.release(tmp_path, "1", [sample()])
    before = history.read(tmp_path)
    with pytest.raises(history.Incompatible):
        history.release(tmp_path, "2", [sample({"name": (str, ...)})])
    assert history.read(tmp_path) == before


def test_a_release_has_a_name_of_its_own(tmp_path: Path):
    history.release(tmp_path, "1", [sample()])
    with pytest.raises(ValueError, match="1 is released already"):
        history.release(tmp_path, "1", [sample({**FIELDS, "since": (int, 0)})])


# --- the command ---------------------------------------------------------------------------------------------------


def test_the_command_releases_and_checks_the_catalogue(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    main(["release", str(tmp_path), "1"])
    assert capsys.readouterr().out.split() == [message.type_name for message in messages()]
    main(["check", str(tmp_path)])


def test_the_command_ends_with_the_lines_of_what_is_wrong(tmp_path: Path):
    history.release(tmp_path, "1", [sample()])
    with pytest.raises(SystemExit, match=re.escape(f"{sample().type_name}: is removed")):
        main(["check", str(tmp_path)])


def test_the_command_refuses_a_history_that_is_not_there(tmp_path: Path):
    with pytest.raises(SystemExit, match="is no folder"):
        main(["check", str(tmp_path / "nowhere")])


def test_a_services_own_messages_have_a_history_of_their_own(tmp_path: Path):
    main(["release", str(tmp_path), "1", "flip_contracts.audit"])
    assert {type_name.split(".")[1] for type_name in history.read(tmp_path)} <= {"audit"}
