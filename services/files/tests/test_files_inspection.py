"""What is looked for in a model's files, and that a hostile file harms nothing but its own inspection."""

import io
import json
import pickle
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from flip_contracts.projects import Framework
from flip_files.findings import Inspection
from flip_files.inspection import inspect, inspect_apart

pytestmark = pytest.mark.requirement("FILE-2")


def inspected(tmp_path: Path, path: str, content: bytes, framework: Framework = "nvflare") -> Inspection:
    file = tmp_path / f"file{Path(path).suffix}"
    file.write_bytes(content)
    return inspect(framework, path, file)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return eval, ("1 + 1",)


def zipped(name: str, content: bytes) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr(name, content)
    return held.getvalue()


def tarred() -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("trainer.py"))
    return held.getvalue()


@pytest.mark.parametrize("path", ["app.zip", "trainer.py", "weights.npz", "notes.txt"])
@pytest.mark.parametrize("content", [zipped("a", b"a"), tarred(), b"\x1f\x8b\x08", b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a"])
def test_an_archive_is_refused_whatever_it_is_called(tmp_path: Path, path: str, content: bytes) -> None:
    assert inspected(tmp_path, path, content).refused == "archive-not-allowed"


@pytest.mark.parametrize("path", ["weights.pkl", "weights.pt", "notes.txt"])
def test_a_pickle_that_calls_for_more_than_tensors_is_refused_by_what_it_calls_for(tmp_path: Path, path: str) -> None:
    found = inspected(tmp_path, path, pickle.dumps(Evil()))
    assert found.refused == "pickle-unsafe"
    assert "eval" in found.detail


def test_weights_as_pytorch_saves_them_are_let_through_and_a_call_among_them_is_not(tmp_path: Path) -> None:
    assert inspected(tmp_path, "a.pt", zipped("a/data.pkl", pickle.dumps({"weight": [1.0]}, 2))).refused is None
    found = inspected(tmp_path, "a.pth", zipped("a/data.pkl", pickle.dumps(Evil(), 2)))
    assert found.refused == "pickle-unsafe"


def test_a_pickle_that_breaks_off_behind_what_it_calls_for_is_refused(tmp_path: Path) -> None:
    assert inspected(tmp_path, "weights.pkl", pickle.dumps(Evil())[:-3]).refused == "pickle-not-readable"


def test_source_that_is_no_python_is_refused_with_its_line(tmp_path: Path) -> None:
    found = inspected(tmp_path, "src/trainer.py", b"a = 1\nb = (\n")
    assert (found.refused, found.detail) == ("python-syntax-error", "Line 2.")


@pytest.mark.parametrize(
    ("source", "findings"),
    [
        ("eval('1')", [(1, "eval")]),
        ("import os\n\nos.system('ls')", [(3, "os.system")]),
        ("import os as o\no.system('ls')", [(2, "os.system")]),
        ("from os import system as s\ns('ls')", [(2, "os.system")]),
        ("import subprocess", [(1, "subprocess")]),
        ("def f():\n    from socket import create_connection", [(2, "socket")]),
        ("import urllib.request", [(1, "urllib.request")]),
        ("import pickle\npickle.loads(b'')\npickle.dumps(1)", [(2, "pickle.loads")]),
        ("import ctypes.util", [(1, "ctypes")]),
        ("import builtins\nbuiltins.exec('')", [(2, "exec")]),
        ("import torch\ntorch.compile(model)\nmodel.eval()", []),
        ("text = 'import socket'  # eval()", []),
    ],
)
def test_calls_worth_a_look_are_told_with_their_line_and_refuse_nothing(
    tmp_path: Path, source: str, findings: list[tuple[int, str]]
) -> None:
    found = inspected(tmp_path, "trainer.py", source.encode())
    assert found.refused is None
    assert [(each.line, each.name) for each in found.findings] == findings


@pytest.mark.requirement("FILE-4")
def test_an_apps_configuration_is_read_with_all_its_problems(tmp_path: Path) -> None:
    right = inspected(tmp_path, "config.json", json.dumps({"AGGREGATION_WEIGHTS": {"KCH": 0.5}, "own": 1}).encode())
    assert right.configuration is not None
    assert (right.configuration.problems, right.configuration.aggregation_weights) == ([], {"KCH": 0.5})
    wrong = inspected(tmp_path, "config.json", b'{"GLOBAL_ROUNDS": 100, "AGGREGATOR": "Mean"}')
    assert wrong.refused is None
    assert wrong.configuration is not None
    assert [each.field for each in wrong.configuration.problems] == ["GLOBAL_ROUNDS", "AGGREGATOR"]
    assert inspected(tmp_path, "data/config.json", b"no JSON").configuration is None


@pytest.mark.requirement("FILE-5")
def test_a_flower_apps_pyproject_names_the_file_of_its_client(tmp_path: Path) -> None:
    text = '[tool.flwr.app.components]\nclientapp = "app.client_app:app"\nserverapp = "app.server:app"\n'
    right = inspected(tmp_path, "pyproject.toml", text.encode(), "flower").configuration
    assert right is not None
    assert (right.client_file, right.server_file, right.problems) == ("app/client_app.py", "app/server.py", [])
    rounds = f"{text}[tool.flwr.app.config]\nnum-server-rounds = 0\n"
    wrong = inspected(tmp_path, "pyproject.toml", rounds.encode(), "flower").configuration
    assert wrong is not None
    assert [each.field for each in wrong.problems] == ["num-server-rounds"]
    assert inspected(tmp_path, "pyproject.toml", text.encode()).configuration is None


def test_text_that_is_too_long_to_be_source_is_refused(tmp_path: Path) -> None:
    assert inspected(tmp_path, "trainer.py", b"#" * ((1 << 20) + 1)).refused == "text-too-large"


async def test_a_file_is_inspected_in_a_process_of_its_own_and_one_that_it_fails_on_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file.py"
    file.write_text("import socket\n")
    found = await inspect_apart("nvflare", "trainer.py", file)
    assert [each.name for each in found.findings] == ["socket"]
    file.unlink()
    assert (await inspect_apart("nvflare", "trainer.py", file)).refused == "inspection-failed"


@pytest.mark.parametrize("source", ["(" * 200_000, "-" * 1_000_000 + "1"])
async def test_source_that_is_nested_beyond_all_measure_is_refused(tmp_path: Path, source: str) -> None:
    file = tmp_path / "file.py"
    file.write_text(source)
    refused = (await inspect_apart("nvflare", "trainer.py", file)).refused
    assert refused in {"python-syntax-error", "python-not-readable", "inspection-failed"}
