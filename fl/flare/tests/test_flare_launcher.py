"""The box of a FLARE job holds what its run needs of the Trust, and not the Trust's key."""

from __future__ import annotations

import json
import shlex
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
from flip_flare.launcher import BoxedJobLauncher
from flip_flare.provision import Net, provision
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.job_launcher_spec import JobProcessArgs
from nvflare.apis.workspace import Workspace

pytestmark = pytest.mark.requirement("RUN-11")

META = {"job_id": "job", "name": "ours.1"}
TRIES = {
    "its data": "open(runs + '/ours/image').read()",
    "what the hub sent": "open(job + '/app_KCH/config/config_fed_client.json').read()",
    "a note in the job's folder": "open(job + '/log.txt', 'w').write('noted')",
    "a note in the app's folder": "open(job + '/app_KCH/bootstrap', 'w').write('noted')",
    "the key": "open(kit + '/startup/client.key').read()",
    "the certificate": "len(open(kit + '/startup/client.crt').read())",
    "the client": "socket.create_connection(('127.0.0.1', port)).recv(9)",
    "the run's state": "open(runs + '/.site/project/runs/ours/plan', 'w').write('kept')",
    "another run's data": "open(runs + '/theirs/image').read()",
    "the Trust's settings": "open(kit + '/local/authorization.json', 'w')",
    "another kit": "os.listdir(kit + '/../server')",
}


TRY = f"""
for what, code in {TRIES!r}.items():
    try:
        print(what, repr(eval(code)), sep="|")
    except OSError as refused:
        print(what, type(refused).__name__, refused.strerror, sep="|")
"""


@dataclass(frozen=True, slots=True)
class Client:
    """A Trust's client with a job that the hub has deployed."""

    folder: Path
    port: int

    @property
    def kit(self) -> Path:
        return self.folder / "kits" / "KCH"

    @property
    def job(self) -> Path:
        return self.kit / "job"

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    def context(self) -> FLContext:
        context = FLContext()
        context.set_prop(FLContextKey.WORKSPACE_OBJECT, Workspace(str(self.kit), "KCH"))
        url = f"tcp://localhost:{self.port}"
        context.set_prop(FLContextKey.JOB_PROCESS_ARGS, {JobProcessArgs.PARENT_URL: ("-p", url)})
        return context

    def names(self) -> str:
        told = {"kit": str(self.kit), "job": str(self.job), "runs": str(self.runs), "port": self.port}
        return "import os, socket\n" + "".join(f"{name} = {value!r}\n" for name, value in told.items())

    def run(self, code: str) -> str:
        """What code prints in the place of FLARE's process of the job."""
        line = shlex.split(BoxedJobLauncher().get_command(META, self.context()))
        command = [*line[: line.index("--") + 1], sys.executable, "-c", code]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
        return ended.stderr


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    made = Client(tmp_path, 0)
    provision(Net("net1", ("KCH",), 29594), tmp_path / "kits")
    for run, project in (("ours", "project"), ("theirs", "other")):
        (made.runs / run).mkdir(parents=True)
        (made.runs / run / "image").write_text(run)
        (made.runs / run / "prepared.json").write_text(json.dumps({"project_id": project}))
    config = made.job / "app_KCH" / "config"
    config.mkdir(parents=True)
    (config / "config_fed_client.json").write_text("deployed")
    (made.job / "meta.json").write_text(json.dumps(META))
    monkeypatch.setenv("FLIP_FLARE_RUNS", str(made.runs))
    monkeypatch.setenv("FLIP_FLARE_MINIMUM_CASES", "1")
    return made


def test_a_job_finds_what_it_needs_and_nothing_that_it_must_not_have(client: Client):
    with socket.create_server(("127.0.0.1", 0)) as hub:
        client = Client(client.folder, hub.getsockname()[1])
        threading.Thread(target=lambda: hub.accept()[0].sendall(b"weights"), daemon=True).start()
        said = dict(line.split("|", 1) for line in client.run(client.names() + TRY).splitlines())
    assert {what: said[what] for what in list(TRIES)[:4]} == {
        "its data": "'ours'",
        "what the hub sent": "'deployed'",
        "a note in the job's folder": "5",
        "a note in the app's folder": "5",
    }
    assert said["the key"] == repr((client.kit / "local" / "nobody.key").read_text())
    assert int(said["the certificate"]) > 0
    assert (said["the client"], said["the run's state"]) == ("b'weights'", "4")
    assert said["another run's data"].startswith("FileNotFoundError")
    assert said["another kit"].startswith("FileNotFoundError")
    assert said["the Trust's settings"].startswith(("PermissionError", "OSError|Read-only"))
    assert not (client.job / "log.txt").exists(), "a job leaves nothing in the kit, where the client might follow it"
    assert (client.runs / ".site/project/runs/ours/plan").read_text() == "kept"


def test_a_job_of_a_run_that_the_trust_has_not_prepared_is_not_started(client: Client):
    with pytest.raises(ValueError, match=r"run unknown: prepared.json"):
        BoxedJobLauncher().get_command({**META, "name": "unknown.1"}, client.context())


def test_a_job_that_brings_code_is_not_started_where_the_pod_is_the_box(
    client: Client, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FLIP_FLARE_SANDBOX", json.dumps({"kind": "pod"}))
    BoxedJobLauncher().get_command(META, client.context())
    (client.job / "app_KCH" / "custom").mkdir()
    with pytest.raises(ValueError, match="brings code"):
        BoxedJobLauncher().get_command(META, client.context())


def test_a_client_does_not_start_without_a_sandbox(client: Client, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(client.folder))
    command = [sys.executable, "-m", "flip_flare.client", "--kit", str(client.kit), "--site", "KCH"]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert refused.returncode == 2
    assert "install bubblewrap" in refused.stderr
