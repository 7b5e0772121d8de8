"""Startup kits: made once, added to later, and narrow in what they let the hub do at a Trust."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from flip_flare.provision import Net, provision

NET = Net("net1", ("KCH", "UCLH"), 29590)


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def kits(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {name: seen for name, seen in contents(folder).items() if not name.startswith("authority/")}


def test_provisioning_again_touches_no_file_of_a_kit(tmp_path: Path):
    provision(NET, tmp_path)
    before = kits(tmp_path)
    provision(NET, tmp_path)
    assert kits(tmp_path) == before
    assert {name.split("/")[0] for name in before} == {"server", "admin", "KCH", "UCLH"}


def test_a_trust_added_later_changes_no_other_kit_and_shares_the_authority(tmp_path: Path):
    provision(NET, tmp_path)
    before = kits(tmp_path)
    provision(Net("net1", ("KCH", "UCLH", "GSTT"), NET.port), tmp_path)
    after = kits(tmp_path)
    assert {name: after[name] for name in before} == before
    authority = x509.load_pem_x509_certificate((tmp_path / "server/startup/rootCA.pem").read_bytes())
    newcomer = x509.load_pem_x509_certificate((tmp_path / "GSTT/startup/client.crt").read_bytes())
    newcomer.verify_directly_issued_by(authority)


def test_another_port_keeps_every_key(tmp_path: Path):
    provision(NET, tmp_path)
    before = {name: seen for name, seen in kits(tmp_path).items() if name.endswith((".key", ".crt", ".pem"))}
    provision(Net("net1", NET.trusts, 29591), tmp_path)
    assert {name: seen for name, seen in kits(tmp_path).items() if name in before} == before
    server = json.loads((tmp_path / "KCH/startup/fed_client.json").read_text())["servers"][0]
    assert server["service"]["target"] == "localhost:29591"


def test_a_trust_behind_a_forwarder_is_told_the_forwarders_port_and_no_other_trust_is(tmp_path: Path):
    provision(NET, tmp_path)
    provision(Net("net1", NET.trusts, NET.port, forwarders={"KCH": 29591}), tmp_path)
    targets = {
        trust: json.loads((tmp_path / trust / "startup/fed_client.json").read_text())["servers"][0]["service"]["target"]
        for trust in NET.trusts
    }
    assert targets == {"KCH": "localhost:29591", "UCLH": f"localhost:{NET.port}"}


@pytest.mark.parametrize("forwarders", [{"GSTT": 29591}, {"KCH": 0}])
def test_a_forwarder_of_no_trust_or_at_no_port_is_refused(forwarders: dict[str, int]):
    with pytest.raises(ValueError, match="through: "):
        Net("net1", NET.trusts, NET.port, forwarders=forwarders)


def test_a_trust_cannot_be_left_out_once_it_has_a_certificate(tmp_path: Path):
    provision(NET, tmp_path)
    with pytest.raises(ValueError, match=r"trusts: UCLH cannot leave the net net1"):
        provision(Net("net1", ("KCH",), NET.port), tmp_path)


def test_private_keys_are_their_owners_alone(tmp_path: Path):
    provision(NET, tmp_path)
    keys = list(tmp_path.glob("*/startup/*.key"))
    assert len(keys) == 4
    assert {stat.S_IMODE(key.stat().st_mode) for key in keys} == {0o600}


def test_two_nets_share_no_storage(tmp_path: Path):
    for name in ("net1", "net2"):
        provision(Net(name, NET.trusts, NET.port), tmp_path / name)
    for name in ("net1", "net2"):
        resources = (tmp_path / name / "server/local/resources.json").read_text()
        folders = [line for line in resources.splitlines() if '_root"' in line or "root_dir" in line]
        stores = [line for line in folders if line.split(": ")[1] != '"/",' and line.split(": ")[1] != '"/"']
        assert len(stores) == 2
        assert all(str(tmp_path / name / "server/store") in line for line in stores)


def test_a_trust_allows_only_this_packages_classes_and_streams_no_log(tmp_path: Path):
    provision(NET, tmp_path)
    resources = json.loads((tmp_path / "KCH/local/resources.json").read_text())
    assert resources["class_list_enforcement_mode"] == "enforce"
    assert all(name.startswith("flip_flare.") for name in resources["class_allow_list"])
    assert resources["allow_log_streaming"] is False
    assert all("Streamer" not in component["path"] for component in resources["components"])


@pytest.mark.requirement("RUN-11")
def test_a_trust_boxes_every_job_and_lets_none_speak_to_the_hub_by_itself(tmp_path: Path):
    provision(NET, tmp_path)
    local = tmp_path / "KCH/local"
    components = json.loads((local / "resources.json").read_text())["components"]
    launchers = [component["path"] for component in components if "auncher" in component["path"]]
    assert launchers == ["flip_flare.launcher.BoxedJobLauncher"]
    assert json.loads((local / "comm_config.json").read_text()) == {"backbone": {"connect_generation": 1}}


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"net": "Net/../1"}, "net"),
        ({"trusts": "KCH,../etc"}, "trusts"),
        ({"trusts": "KCH,KCH"}, "trusts"),
        ({"trusts": ""}, "trusts"),
        ({"port": "70000"}, "port"),
    ],
)
def test_a_malformed_argument_is_named_and_nothing_is_written(tmp_path: Path, given: dict[str, str], field: str):
    arguments = {"net": "net1", "trusts": "KCH,UCLH", "port": "29590", "output": str(tmp_path / "net")} | given
    flags = [part for name, value in arguments.items() for part in (f"--{name}", value)]
    done = subprocess.run(
        [sys.executable, "-m", "flip_flare.provision", *flags], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert f"error: {field}:" in done.stderr
    assert not (tmp_path / "net").exists()


@pytest.mark.requirement("RUN-3")
def test_a_net_has_one_job_at_a_time_and_misses_a_silent_trust_after_30_seconds(tmp_path: Path):
    """FLARE's own server has four jobs at a time, and takes ten minutes to miss a client."""
    provision(NET, tmp_path)
    resources = json.loads((tmp_path / "server/local/resources.json").read_text())
    [scheduler] = [each for each in resources["components"] if each["id"] == "job_scheduler"]
    assert scheduler["args"]["max_jobs"] == 1
    assert [server["heart_beat_timeout"] for server in resources["servers"]] == [30]
