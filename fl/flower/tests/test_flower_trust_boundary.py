"""Who may join a net, and what its ports give to whom."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from flip_flower.kit import AUTHORITY_CERTIFICATE, KEY, Net
from flip_flower.testing import LocalNet
from flip_nnunet.testing.local_net import TRUSTS

pytestmark = pytest.mark.parts


@pytest.mark.requirement("RUN-4")
def test_a_stranger_with_a_key_of_his_own_cannot_join_even_under_a_trusts_name(net: LocalNet, tmp_path: Path):
    kit = tmp_path / "stranger"
    shutil.copytree(net.kits / "KCH", kit, ignore=shutil.ignore_patterns("flower"))
    key = ec.generate_private_key(ec.SECP384R1())
    (kit / KEY).write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    command = [sys.executable, "-m", "flip_flower.client", "--kit", str(kit), "--site", "KCH"]
    environment = {"FLIP_FLOWER_RUNS": str(tmp_path / "runs"), "FLIP_FLOWER_MINIMUM_CASES": "1"}
    refused = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert refused.returncode != 0
    assert "Failed to initialize the connection" in refused.stdout + refused.stderr
    assert net.ask(op="connected") == {"sites": sorted(TRUSTS)}


@pytest.mark.parametrize(
    "path",
    ["/v1/control/start-run", "/v1/control/list-runs", "/v1/runtime/acquire-task", "/docs"],
)
def test_what_trusts_connect_to_serves_nodes_only(net: LocalNet, path: str):
    about = Net.read(net.kits / "KCH")
    trusted = ssl.create_default_context(cafile=str(net.kits / "KCH" / AUTHORITY_CERTIFICATE))
    answer = httpx.post(f"https://{about.address}{path}", content=b"", verify=trusted)
    assert answer.status_code == 404


def test_a_message_to_the_nodes_port_without_a_nodes_signature_is_refused(net: LocalNet):
    about = Net.read(net.kits / "KCH")
    trusted = ssl.create_default_context(cafile=str(net.kits / "KCH" / AUTHORITY_CERTIFICATE))
    header = {"content-type": "application/protobuf", "accept": "application/protobuf"}
    answer = httpx.post(f"https://{about.address}/v1/fleet/pull-messages", content=b"", headers=header, verify=trusted)
    assert answer.status_code == 401
