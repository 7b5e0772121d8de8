import json
from pathlib import Path
from uuid import UUID

from flip_contracts.base import RunId
from flip_trainer_node.run_folder import RunFolder, Tail


def test_each_line_is_read_once_and_a_line_that_is_being_written_is_left_for_later(tmp_path: Path) -> None:
    folder = RunFolder.of(tmp_path, RunId(UUID(int=1)))
    tail = Tail(folder)
    assert list(tail.lines()) == []
    folder.make()
    with (folder.path / "events.jsonl").open("a") as file:
        file.write(json.dumps({"seq": 1}) + "\n" + '{"se')
        file.flush()
        assert [line["seq"] for line in tail.lines()] == [1]
        assert list(tail.lines()) == []
        file.write('q": 2}\n')
        file.flush()
        assert [line["seq"] for line in tail.lines()] == [2]
    assert [line["seq"] for line in Tail(folder).lines()] == [1, 2]
