"""A Trust keeps its own rules, also against a hub that has dropped all of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from flip_flare.testing import LocalNet

HOSTILE = textwrap.dedent(
    """
    import os, sys
    from nvflare.fuel.flare_api.flare_api import new_secure_session
    from flip_flare.provision import ADMIN
    session = new_secure_session(ADMIN, sys.argv[1], timeout=20)
    try:
        print(eval(sys.argv[2]), flush=True)
    except Exception as error:
        print("REFUSED", type(error).__name__, error, flush=True)
    sys.stdout.flush()
    os._exit(0)
    """
)


@pytest.fixture(scope="module")
def hostile_net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalNet]:
    """A net whose hub allows itself everything."""
    with LocalNet(tmp_path_factory.mktemp("hostile")) as local:
        server = local.kits / "server" / "local"
        everything = {"format_version": "1.0", "permissions": {"project_admin": "any"}}
        (server / "authorization.json").write_text(json.dumps(everything))
        resources = json.loads((server / "resources.json").read_text())
        (server / "resources.json").write_text(json.dumps(resources | {"class_allow_list": ["*"]}))
        local.start_all()
        yield local


def as_hub(net: LocalNet, expression: str) -> str:
    command = [sys.executable, "-c", HOSTILE, str(net.kits / "admin"), expression]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()[-1]


def write_hostile_job(folder: Path, executor: dict[str, object]) -> Path:
    config = folder / "app" / "config"
    config.mkdir(parents=True)
    workflow = {"path": "nvflare.app_common.workflows.fedavg.FedAvg", "args": {"num_clients": 2, "num_rounds": 1}}
    (folder / "meta.json").write_text(json.dumps({"name": "x", "min_clients": 2, "deploy_map": {"app": ["@ALL"]}}))
    (config / "config_fed_server.json").write_text(
        json.dumps({"format_version": 2, "workflows": [{"id": "w"} | workflow], "components": []})
    )
    (config / "config_fed_client.json").write_text(
        json.dumps({"format_version": 2, "executors": [{"tasks": ["*"], "executor": executor}], "components": []})
    )
    return folder


def touch(marker: Path) -> str:
    return f"from pathlib import Path; Path({str(marker)!r}).touch()"


def assert_refused_by_the_trusts(net: LocalNet, job: Path, marker: Path) -> None:
    submitted = as_hub(net, f"session.submit_job({str(job)!r})")
    assert "REFUSED" not in submitted, "the hostile hub must get as far as the Trusts"
    assert net.wait_for_end(submitted) == "failed"
    assert not marker.exists()


@pytest.mark.parts
@pytest.mark.parametrize(
    "expression",
    [
        "session.cat_target('KCH', file='log.txt')",
        "session.ls_target('KCH')",
        "session.get_client_env(['KCH'])",
    ],
)
def test_the_hub_cannot_look_into_a_trusts_files(hostile_net: LocalNet, expression: str):
    assert "not authorized" in as_hub(hostile_net, expression).lower()


@pytest.mark.parts
def test_a_trust_runs_no_code_that_a_job_brings(hostile_net: LocalNet, tmp_path: Path):
    marker = tmp_path / "ran"
    job = write_hostile_job(tmp_path / "job", {"path": "evil.Evil", "args": {}})
    (job / "app" / "custom").mkdir()
    (job / "app" / "custom" / "evil.py").write_text(touch(marker))
    assert_refused_by_the_trusts(hostile_net, job, marker)


@pytest.mark.parts
def test_a_trust_runs_no_command_that_a_job_names(hostile_net: LocalNet, tmp_path: Path):
    marker = tmp_path / "ran"
    executor = {
        "path": "nvflare.app_common.executors.client_api_executor.ClientAPIExecutor",
        "args": {"execution_mode": "external_process", "command": [sys.executable, "-c", touch(marker)]},
    }
    assert_refused_by_the_trusts(hostile_net, write_hostile_job(tmp_path / "job", executor), marker)
