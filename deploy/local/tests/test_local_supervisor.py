"""What the supervisor promises, shown with real parts on a stack of their own."""

import dataclasses
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flip_local import control
from flip_local.control import StackProblem
from flip_local.layout import Layout
from flip_local.testing import layout_for_tests

pytestmark = pytest.mark.parts

BESIDE_THE_TEST_STACK = 50


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    # A path longer than a unix socket's address may be.
    state = tmp_path / ("a" * 60) / ("b" * 60)
    base = layout_for_tests()
    layout = dataclasses.replace(base, state=state, port_base=base.port_base + BESIDE_THE_TEST_STACK)
    yield layout
    control.down(layout)


def pid_namespace(pid: int) -> str | None:
    try:
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    except OSError:
        return None


def processes_in(namespace: str) -> set[int]:
    pids = (int(entry.name) for entry in Path("/proc").glob("[0-9]*"))
    return {pid for pid in pids if pid_namespace(pid) == namespace}


def supervisor(layout: Layout) -> int:
    """The supervisor's pid as this process sees it."""
    mine = pid_namespace(os.getpid())
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command, environment = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
        except OSError:
            continue
        is_supervisor = b"flip_local.supervisor" in command and f"FLIP_STATE={layout.state}\0".encode() in environment
        if is_supervisor and pid_namespace(int(entry.name)) != mine:
            return int(entry.name)
    raise AssertionError("no supervisor")


def until(condition: Callable[[], bool], deadline_s: float = 30) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.02)


def part(layout: Layout, name: str) -> dict[str, object]:
    return next(part for part in control.status(layout) if part["name"] == name)


def test_a_killed_part_starts_again_and_what_it_had_started_is_gone(layout: Layout):
    control.up(layout, ["gateway"])
    namespace = pid_namespace(supervisor(layout))
    assert namespace is not None
    before = processes_in(namespace)
    assert len(before) == 3, "the supervisor, nginx and its worker"
    control.kill(layout, "gateway")
    control.up(layout, ["gateway"])
    after = processes_in(namespace)
    assert before & after == {supervisor(layout)}
    assert len(after) == 3
    assert part(layout, "gateway")["restarts"] == 1


def test_nothing_is_left_when_the_supervisor_is_killed(layout: Layout):
    control.up(layout, ["gateway", "postgres-hub"])
    pid = supervisor(layout)
    namespace = pid_namespace(pid)
    assert namespace is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: not processes_in(namespace))
    assert not control.is_running(layout)


def test_a_stack_starts_again_after_its_supervisor_was_killed(layout: Layout):
    control.up(layout, ["postgres-hub"])
    os.kill(supervisor(layout), signal.SIGKILL)
    until(lambda: not control.is_running(layout))
    control.up(layout, ["postgres-hub"])
    assert part(layout, "postgres-hub")["state"] == "ready"


def test_down_leaves_no_process(layout: Layout):
    control.up(layout, ["gateway", "smtp", "clamd"])
    namespace = pid_namespace(supervisor(layout))
    assert namespace is not None
    control.down(layout)
    assert processes_in(namespace) == set()
    assert not control.is_running(layout)


def test_down_leaves_no_process_of_a_supervisor_that_answers_no_more(layout: Layout):
    control.up(layout, ["gateway"])
    pid = supervisor(layout)
    namespace = pid_namespace(pid)
    assert namespace is not None
    os.kill(pid, signal.SIGSTOP)
    control.down(layout, patience_s=0.5)
    until(lambda: not processes_in(namespace))


def test_a_stack_is_not_started_on_other_ports_than_it_was_made_with(layout: Layout):
    control.up(layout, ["clamd"])
    control.down(layout)
    with pytest.raises(StackProblem, match=f"FLIP_PORT_BASE={layout.port_base}"):
        control.up(dataclasses.replace(layout, port_base=layout.port_base + 1), ["clamd"])


def test_a_part_starts_once_all_that_it_needs_is_ready(layout: Layout):
    seen: list[tuple[str, str]] = []
    control.up(layout, ["databases-hub"], lambda part, state: seen.append((part, state)))
    in_order = [
        ("postgres-hub-data", "done"),
        ("postgres-hub", "starting"),
        ("postgres-hub", "ready"),
        ("databases-hub", "starting"),
        ("databases-hub", "done"),
    ]
    assert [event for event in seen if event in in_order] == in_order


def test_a_stopped_part_stays_down_until_it_is_started(layout: Layout):
    control.up(layout, ["smtp", "clamd"])
    control.stop(layout, ["smtp"])
    assert part(layout, "smtp")["state"] == "stopped"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", layout.port("smtp"))).close()
    assert part(layout, "clamd")["state"] == "ready"
    control.up(layout, ["smtp"])
    socket.create_connection(("127.0.0.1", layout.port("smtp"))).close()


def test_a_port_in_use_is_named_with_its_holder_and_leaves_nothing_running(layout: Layout):
    with socket.create_server(("127.0.0.1", layout.port("smtp"))), pytest.raises(StackProblem) as refused:
        control.up(layout, ["smtp"])
    assert str(layout.port("smtp")) in str(refused.value)
    assert f"pid {os.getpid()}" in str(refused.value)
    assert "FLIP_PORT_BASE" in str(refused.value)
    assert not control.is_running(layout)


def test_a_part_that_cannot_start_is_named_with_the_end_of_its_log(layout: Layout):
    storage = layout.folder("KCH", "pacs", "storage")
    storage.parent.mkdir(parents=True)
    storage.write_text("a file where Orthanc's folder should be")
    with pytest.raises(StackProblem, match=r"pacs-KCH exited with status[^$]*File exists"):
        control.up(layout, ["pacs-KCH"])


def test_two_stacks_run_side_by_side(layout: Layout, tmp_path: Path):
    other = dataclasses.replace(layout, state=tmp_path / "other", port_base=layout.port_base + 8)
    control.up(layout, ["clamd"])
    try:
        control.up(other, ["clamd"])
        control.down(layout)
        assert part(other, "clamd")["state"] == "ready"
    finally:
        control.down(other)
