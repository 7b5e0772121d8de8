"""A hostile trainer reaches nothing and takes no more than it may; an honest one notices nothing of its box."""

from __future__ import annotations

import json
import os
import shutil
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from flip_nnunet.sandbox import Box, Ending, SandboxSettings, SandboxUnavailable, boxed, check
from flip_nnunet.sandbox.pod import Pod
from pydantic import ValidationError

pytestmark = pytest.mark.requirement("RUN-11")

SETTINGS = SandboxSettings(memory_mib=512, processes=64, output_mib=64, time_s=120)
DEADLINE_S = 90.0
KEY = "-----BEGIN PRIVATE KEY-----"


@dataclass(frozen=True, slots=True)
class Trust:
    """What lies at a Trust: a run's data and its work, another project's, and the kit with the Trust's key."""

    folder: Path
    port: int
    """Where something listens at 127.0.0.1: the hub, or another service of the Trust."""

    @property
    def data(self) -> Path:
        return self.folder / "runs" / "ours"

    @property
    def work(self) -> Path:
        return self.folder / "runs" / ".site" / "project" / "runs" / "ours"

    @property
    def key(self) -> Path:
        return self.folder / "kit" / "client.key"

    @property
    def box(self) -> Box:
        return Box(readable=(self.data,), writable=(self.work,))

    def run(
        self, code: str, box: Box | None = None, settings: SandboxSettings = SETTINGS
    ) -> subprocess.CompletedProcess[str]:
        """Run a trainer's code to its end. It may use what this object has, by name."""
        command = boxed([sys.executable, "-c", self.names() + code], box or self.box, settings)
        return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)

    def names(self) -> str:
        paths = {name: str(getattr(self, name)) for name in ("folder", "data", "work", "key")}
        told = {**paths, "port": self.port, "outside": os.getpid()}
        return "import ctypes, os, socket, sys, time\n" + "".join(
            f"{name} = {value!r}\n" for name, value in told.items()
        )


class Echo(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.wfile.write(self.rfile.readline())


@pytest.fixture
def trust(tmp_path: Path) -> Iterator[Trust]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever).start()
        made = Trust(tmp_path, server.server_address[1])
        for place, content in (
            (made.data / "image", "ours"),
            (tmp_path / "runs" / "other" / "image", "theirs"),
            (made.key, KEY),
        ):
            place.parent.mkdir(parents=True)
            place.write_text(content)
        yield made
        server.shutdown()


def boxes_left(trust: Trust) -> list[psutil.Process]:
    """Processes whose command line names this test's folder."""
    found = [process for process in psutil.process_iter(["cmdline"]) if process.pid != os.getpid()]
    return [process for process in found if str(trust.folder) in " ".join(process.info["cmdline"] or [])]


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def test_a_box_holds_its_own_data_and_what_it_writes_stays(trust: Trust):
    ended = trust.run("open(work + '/plan', 'w').write(open(data + '/image').read()); print('done'); sys.exit(7)")
    assert (ended.returncode, ended.stderr) == (7, "done\n")
    assert (trust.work / "plan").read_text() == "ours"


REACHES = {
    "the hub's port": "socket.create_connection(('127.0.0.1', port))",
    "an address on the internet": "socket.create_connection(('192.0.2.1', 443), 5)",
    "an address of the Trust's network": "socket.create_connection(('10.0.0.1', 5432), 5)",
    "another project's data": "open(folder + '/runs/other/image').read()",
    "the key of the kit": "open(key).read()",
    "the accounts of the machine": "open('/etc/shadow').read()",
    "a process outside": "open(f'/proc/{outside}/environ').read()",
    "a process outside, to end it": "os.kill(outside, 9)",
    "its data, to change it": "open(data + '/image', 'w')",
    "its programs, to change them": "open(sys.prefix + '/lib/planted.py', 'w')",
    "the system's programs": "open('/usr/bin/planted', 'w')",
    "a place that nobody measures": "open('/planted', 'w')",
    "the devices' folder": "open('/dev/planted', 'w')",
    "the kernel's settings": "open('/proc/sys/kernel/hostname', 'w').write('planted')",
    "the variables of the client": "os.environ['FLIP_SECRET']",
}
REFUSALS = (
    *("FileNotFoundError", "ConnectionRefusedError", "Network is unreachable", "Read-only file system"),
    *("PermissionError", "ProcessLookupError", "KeyError"),
)


def test_what_is_not_in_the_box_is_out_of_reach(trust: Trust, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FLIP_SECRET", "secret")
    ended = trust.run(
        f"for what, code in {REACHES!r}.items():\n"
        "    try:\n"
        "        print(what, 'REACHED', eval(code), sep='|')\n"
        "    except Exception as refused:\n"
        "        print(what, type(refused).__name__, refused, sep='|')\n"
    )
    said = dict(line.split("|", 1) for line in ended.stderr.splitlines())
    assert said.keys() == REACHES.keys()
    for what, answer in said.items():
        assert any(refusal in answer for refusal in REFUSALS), f"{what}: {answer}"


def test_all_processes_in_sight_are_the_boxs_own_and_none_is_root(trust: Trust):
    ended = trust.run(
        "pids = [pid for pid in os.listdir('/proc') if pid.isdigit()]\n"
        "caps = [line for line in open('/proc/self/status') if line[:6] in ('CapPrm', 'CapEff', 'CapAmb')]\n"
        "print(len(pids), os.getuid(), os.getgid(), os.getgroups(), {line.split()[1] for line in caps})"
    )
    own, groups = (SETTINGS.user, []) if os.geteuid() == 0 else (os.geteuid(), os.getgroups())
    assert ended.stderr == f"2 {own} {own} {groups} {{'0000000000000000'}}\n", (
        "bubblewrap's first process, and this one"
    )


def test_no_namespace_can_be_made_in_which_the_box_would_be_root(trust: Trust):
    assert trust.run("print(ctypes.CDLL(None).unshare(0x10000000))").stderr == "-1\n"


@pytest.mark.skipif(shutil.which("unshare") is None, reason="util-linux's unshare is missing")
def test_a_client_that_is_not_root_has_the_same_walls(trust: Trust):
    code = (
        "print(os.getuid())\n"
        "tries = (lambda: open(key), lambda: socket.create_connection(('127.0.0.1', port)),\n"
        "         lambda: open('/planted', 'w'), lambda: open('/dev/planted', 'w'))\n"
        "for reach in tries:\n"
        "    try:\n"
        "        reach()\n"
        "    except OSError as refused:\n"
        "        print(type(refused).__name__, refused.errno)\n"
        "print(ctypes.CDLL(None).unshare(0x10000000), flush=True)\n"
        "for _ in range(100):\n"
        "    if os.fork() == 0: time.sleep(60)\n"
        "time.sleep(60)\n"
    )
    command = boxed([sys.executable, "-c", trust.names() + code], trust.box, SETTINGS)
    ended = subprocess.run(
        ["unshare", "--user", "--map-user=4321", "--map-group=4321", "--", *command],
        capture_output=True, text=True, timeout=DEADLINE_S, check=False,
    )  # fmt: skip
    tries = ["FileNotFoundError 2", "ConnectionRefusedError 111", "OSError 30", "OSError 30"]
    why = "sandbox: the box was ended: it has more than 64 processes and threads"
    assert (ended.stderr.splitlines(), ended.returncode) == (["4321", *tries, "-1", why], Ending.PROCESSES)


def test_a_covered_file_shows_what_stands_in_its_place(trust: Trust):
    box = trust.box.model_copy(update={"covered": {trust.key: trust.data / "image"}})
    ended = trust.run("print(open(key).read())", box)
    assert ended.stderr == "ours\n"


def test_the_one_port_that_is_given_can_be_reached_and_no_other(trust: Trust):
    code = (
        "with socket.create_connection(('127.0.0.1', port)) as hub:\n"
        "    hub.sendall(b'weights' * 100_000 + b'\\n')\n"
        "    answer = hub.makefile('rb').readline()\n"
        "print(len(answer))\n"
        "socket.create_connection(('127.0.0.1', port + 1))"
    )
    ended = trust.run(code, trust.box.model_copy(update={"port": trust.port}))
    assert ended.stderr.splitlines()[0] == "700001"
    assert "ConnectionRefusedError" in ended.stderr


def test_a_channel_is_passed_on_and_its_other_end_sees_the_end_of_the_box(trust: Trust):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        box = trust.box.model_copy(update={"channel": theirs.fileno()})
        code = f"socket.socket(fileno={theirs.fileno()}).sendall(b'answer')"
        command = boxed([sys.executable, "-c", trust.names() + code], box, SETTINGS)
        with subprocess.Popen(command, pass_fds=[theirs.fileno()]):
            theirs.close()
            ours.settimeout(DEADLINE_S)
            assert ours.makefile("rb").read() == b"answer"


GROWS = {
    "a fork bomb": ("while True: os.fork()", {1}, "Resource temporarily unavailable"),
    "too many threads": (
        "import threading\nwhile True: threading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
        {1},
        "can't start new thread",
    ),
    "memory in one process": ("bytearray(600 << 20)", {1}, "MemoryError"),
    "memory in many processes": (
        "for _ in range(8):\n    if os.fork() == 0: break\nheld = b'x' * (120 << 20); time.sleep(60)",
        {Ending.MEMORY},
        "use more than 512 MiB of memory",
    ),
    "memory that is shared": (
        "import mmap\nheld = mmap.mmap(-1, 600 << 20)\nfor _ in range(600): held.write(b'x' * 2**20)\ntime.sleep(60)",
        {Ending.MEMORY},
        "use more than 512 MiB of memory",
    ),
    "files in memory": (
        "for number in range(4): open(f'/dev/shm/{number}', 'wb').write(bytes(50 << 20))",
        {1},
        "No space left on device",
    ),
    "temporary files": (
        "for number in range(2): open(f'/tmp/{number}', 'wb').write(bytes(50 << 20))",
        {1},
        "No space left on device",
    ),
    "a file of 100 GiB with a hole": ("open(work + '/file', 'wb').truncate(100 << 30)", {1}, "File too large"),
    "100 GiB in a file": (
        "file = open(work + '/file', 'wb')\nfor _ in range(100 << 10): file.write(bytes(1 << 20))",
        {1},
        "File too large",
    ),
    "100 GiB in many files": (
        "for number in range(100 << 10):\n    open(f'{work}/{number}', 'wb').write(bytes(1 << 20)); time.sleep(0.01)",
        {Ending.OUTPUT},
        "written more than 64 MiB",
    ),
    "files without content": (
        "os.mkdir(work + '/a')\nfor number in range(20000): open(f'{work}/a/{number}', 'w')\ntime.sleep(60)",
        {Ending.OUTPUT},
        "written more than 64 MiB",
    ),
    "a folder that cannot be measured": (
        "for _ in range(300): os.mkdir('x' * 200); os.chdir('x' * 200)\ntime.sleep(60)",
        {Ending.OUTPUT},
        "written more than 64 MiB",
    ),
}


@pytest.mark.parametrize("what", GROWS)
def test_a_trainer_that_takes_too_much_is_stopped(trust: Trust, what: str):
    code, endings, why = GROWS[what]
    ended = trust.run(code, trust.box.model_copy(update={"folder": trust.work}))
    assert ended.returncode in endings, ended.stderr[-2000:]
    assert why in ended.stderr
    until(lambda: not boxes_left(trust), "a process of the box is left")


def test_a_trainer_that_takes_too_long_is_stopped(trust: Trust):
    ended = trust.run("time.sleep(600)", settings=SETTINGS.model_copy(update={"time_s": 1}))
    assert (ended.returncode, ended.stderr) == (Ending.TIME, "sandbox: the box was ended: it ran for 1 s\n")


def test_a_trainer_that_prints_too_much_goes_on_and_is_no_longer_heard(trust: Trust):
    ended = trust.run("for _ in range(80): os.write(1, b'#' * (1 << 20))\nopen(work + '/done', 'w')")
    assert ended.returncode == 0
    assert ended.stderr.count("#") == 64 << 20
    assert "what it prints from here on is dropped" in ended.stderr
    assert (trust.work / "done").exists()


def test_what_was_there_before_is_not_the_boxs_output(trust: Trust):
    trust.work.mkdir(parents=True)
    (trust.work / "earlier").write_bytes(bytes(100 << 20))
    assert trust.run("time.sleep(3)").returncode == 0


def test_where_an_earlier_run_left_what_cannot_be_measured_no_box_is_made(trust: Trust):
    trust.run(
        "for _ in range(50): os.mkdir('x' * 200); os.chdir('x' * 200)",
        trust.box.model_copy(update={"folder": trust.work}),
    )
    ended = trust.run("print('started')")
    assert (ended.returncode, ended.stderr) == (
        Ending.UNAVAILABLE,
        "sandbox: no box can be made: what is in its folders already cannot be measured\n",
    )


def test_when_the_warden_is_killed_nothing_of_the_box_is_left(trust: Trust):
    code = "if os.fork() == 0: os.setsid()\nprint('up', flush=True); time.sleep(600)"
    with subprocess.Popen(
        boxed([sys.executable, "-c", trust.names() + code], trust.box, SETTINGS), stderr=subprocess.PIPE
    ) as warden:
        assert warden.stderr is not None
        assert [warden.stderr.readline() for _ in range(2)] == [b"up\n"] * 2
        assert len(boxes_left(trust)) >= 4
        warden.kill()
    until(lambda: not boxes_left(trust), "a process of the box outlived its warden")


def test_without_bubblewrap_no_box_is_made_and_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxUnavailable, match="install bubblewrap"):
        check(SandboxSettings())


def test_the_sandbox_is_bubblewrap_unless_the_trust_says_pod_and_nothing_else_can_be_said():
    assert SandboxSettings.model_validate({}).kind == "bubblewrap"
    for wrong, field in (({"kind": "none"}, "kind"), ({"memory": 5}, "memory"), ({"user": 0}, "user")):
        with pytest.raises(ValidationError, match=rf"(?s){field}\n"):
            SandboxSettings.model_validate_json(json.dumps(wrong))


# --- in a pod ---------------------------------------------------------------------------------------------------------

CONFINED = "Uid:\t1000\t1000\t1000\t1000\nCapPrm:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n"


def pod(folder: Path, status: str = CONFINED, limits: Sequence[tuple[str, str]] = ()) -> Pod:
    (folder / "status").write_text(status)
    for name, value in (("memory.max", "68719476736"), ("pids.max", "1024"), *limits):
        (folder / name).write_text(value + "\n")
    return Pod(folder / "status", folder)


def test_a_pod_that_is_set_up_as_the_docs_say_is_taken(tmp_path: Path):
    pod(tmp_path).check()


@pytest.mark.parametrize(
    ("changed", "limits", "what"),
    [
        (("Uid:\t1000", "Uid:\t0"), (), "runAsNonRoot"),
        (("CapPrm:\t0", "CapPrm:\t1"), (), "capabilities.drop"),
        (("NoNewPrivs:\t1", "NoNewPrivs:\t0"), (), "allowPrivilegeEscalation"),
        (("Seccomp:\t2", "Seccomp:\t0"), (), "seccompProfile"),
        (("", ""), (("memory.max", "max"),), "resources.limits.memory"),
        (("", ""), (("pids.max", "max"),), "podPidsLimit"),
    ],
)
def test_a_pod_that_lacks_a_wall_is_refused_by_its_name(
    tmp_path: Path, changed: tuple[str, str], limits: Sequence[tuple[str, str]], what: str
):
    with pytest.raises(SandboxUnavailable, match=what):
        pod(tmp_path, CONFINED.replace(*changed, 1), limits).check()


@pytest.mark.parametrize("kind", ["bubblewrap", "pod"])
def test_a_boxed_trainer_is_told_which_gpus_are_the_nets(trust: Trust, kind: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,3")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    settings = SETTINGS.model_copy(update={"kind": kind})
    ended = trust.run("print(os.environ['CUDA_VISIBLE_DEVICES'], os.environ['CUDA_DEVICE_ORDER'])", settings=settings)
    assert ended.stderr == "1,3 PCI_BUS_ID\n"


def test_in_a_pod_too_memory_output_and_environment_are_the_boxs_own(trust: Trust, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FLIP_SECRET", "secret")
    settings = SETTINGS.model_copy(update={"kind": "pod"})
    assert "KeyError" in trust.run("os.environ['FLIP_SECRET']", settings=settings).stderr
    assert "MemoryError" in trust.run("bytearray(600 << 20)", settings=settings).stderr
    assert "File too large" in trust.run("open(work + '/f', 'wb').truncate(100 << 30)", settings=settings).stderr
    ended = trust.run("os.fork(); held = b'x' * (300 << 20); time.sleep(60)", settings=settings)
    assert ended.returncode == Ending.MEMORY
