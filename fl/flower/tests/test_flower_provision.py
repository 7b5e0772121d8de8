"""Kits: made once, added to later, each with a key of its own."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from flip_flower.kit import Net
from flip_flower.provision import Plan, provision

NET = Net("net1", "hub.example", 30590, 30591)
PLAN = Plan(NET, ("KCH", "UCLH"))


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_provisioning_again_touches_no_file(tmp_path: Path):
    provision(PLAN, tmp_path)
    before = contents(tmp_path)
    provision(PLAN, tmp_path)
    assert contents(tmp_path) == before
    assert {name.split("/")[0] for name in before} == {"authority", "server", "admin", "KCH", "UCLH"}


def test_a_trust_added_later_changes_no_file_of_others_and_becomes_known_to_the_server(tmp_path: Path):
    provision(PLAN, tmp_path)
    before = contents(tmp_path)
    provision(Plan(NET, ("KCH", "UCLH", "GSTT")), tmp_path)
    after = contents(tmp_path)
    assert {name: after[name] for name in before} == before
    assert (tmp_path / "server/trusts/GSTT.pem").is_file()


def test_another_port_keeps_every_key(tmp_path: Path):
    provision(PLAN, tmp_path)
    before = {name: seen for name, seen in contents(tmp_path).items() if name.endswith(".pem")}
    provision(Plan(Net("net1", "hub.example", 30592, 30593), PLAN.trusts), tmp_path)
    assert {name: seen for name, seen in contents(tmp_path).items() if name in before} == before
    assert Net.read(tmp_path / "KCH").address == "hub.example:30592"


def test_a_trust_behind_a_forwarder_is_told_the_forwarders_port_and_no_other_trust_is(tmp_path: Path):
    provision(PLAN, tmp_path)
    provision(Plan(NET, PLAN.trusts, {"KCH": 30599}), tmp_path)
    assert {trust: Net.read(tmp_path / trust).port for trust in PLAN.trusts} == {"KCH": 30599, "UCLH": NET.port}


@pytest.mark.parametrize("forwarders", [{"GSTT": 30599}, {"KCH": 0}])
def test_a_forwarder_of_no_trust_or_at_no_port_is_refused(forwarders: dict[str, int]):
    with pytest.raises(ValueError, match="through: "):
        Plan(NET, PLAN.trusts, forwarders)


def test_a_trust_cannot_be_left_out_once_it_has_a_key(tmp_path: Path):
    provision(PLAN, tmp_path)
    with pytest.raises(ValueError, match=r"trusts: UCLH cannot leave the net net1"):
        provision(Plan(NET, ("KCH",)), tmp_path)


def test_private_keys_are_their_owners_alone_and_no_kit_holds_anothers(tmp_path: Path):
    provision(PLAN, tmp_path)
    keys = list(tmp_path.glob("*/key.pem"))
    assert len(keys) == 4
    assert {stat.S_IMODE(key.stat().st_mode) for key in keys} == {0o600}
    assert len({key.read_bytes() for key in keys}) == 4
    assert not [path for path in (tmp_path / "server").rglob("*") if path.is_file() and path.name == "KCH.key"]
    private = [path for path in (tmp_path / "server/trusts").iterdir() if b"PRIVATE" in path.read_bytes()]
    assert private == []


def test_the_servers_certificate_is_for_its_name_and_signed_by_the_nets_own_authority(tmp_path: Path):
    provision(PLAN, tmp_path)
    authority = x509.load_pem_x509_certificate((tmp_path / "KCH/authority.pem").read_bytes())
    server = x509.load_pem_x509_certificate((tmp_path / "server/certificate.pem").read_bytes())
    server.verify_directly_issued_by(authority)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["hub.example"]


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"net": "Net/../1"}, "net"),
        ({"trusts": "KCH,../etc"}, "trusts"),
        ({"trusts": "KCH,KCH"}, "trusts"),
        ({"trusts": ""}, "trusts"),
        ({"port": "70000"}, "port"),
        ({"control-port": "30590"}, "control_port"),
    ],
)
def test_a_malformed_argument_is_named_and_nothing_is_written(tmp_path: Path, given: dict[str, str], field: str):
    arguments = {"net": "net1", "trusts": "KCH,UCLH", "port": "30590", "output": str(tmp_path / "net")} | given
    flags = [part for name, value in arguments.items() for part in (f"--{name}", value)]
    done = subprocess.run(
        [sys.executable, "-m", "flip_flower.provision", *flags], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert f"error: {field}:" in done.stderr
    assert not (tmp_path / "net").exists()
