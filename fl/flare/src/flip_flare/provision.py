"""Makes the startup kits of a net: one FLARE server, one client a Trust, one admin for the hub's driver; all by mTLS.

    python -m flip_flare.provision --net net1 --trusts KCH,UCLH --port 8002 --output DIR

`DIR` then holds `server/`, `admin/` and one folder a Trust. A second call changes nothing, and one with more Trusts
adds theirs: keys and certificates once made are kept in `DIR/authority/`, which stays at the hub. A Trust that reaches
the server through a forwarder is told its port: `--through KCH=9002`.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from flip_nnunet.files import replace_file, replace_json
from flip_nnunet.forwarders import check_forwarders, parse_forwarder
from nvflare.lighter.constants import AdminRole, CtxKey, ParticipantType, PropKey
from nvflare.lighter.entity import Participant, Project
from nvflare.lighter.impl.cert import CertBuilder
from nvflare.lighter.impl.static_file import StaticFileBuilder
from nvflare.lighter.impl.workspace import WorkspaceBuilder
from nvflare.lighter.provisioner import Provisioner

log = logging.getLogger(__name__)

ADMIN = "driver@hub.flip"
"""The identity of the hub's driver in every net."""
SERVER_KIT, ADMIN_KIT = "server", "admin"
NOBODYS_KEY = "nobody.key"
"""The file of a Trust's `local` folder with a key that no certificate knows; a job finds it in place of the Trust's."""

_AUTHORITY = "authority"
_TEMPLATES = ["master_template.yml"]
_STARTUP_SUFFIXES = {".crt", ".key", ".pem", ".json"}
_DEFAULT_SUFFIX = ".default"
_NET_NAME = re.compile(r"[a-z][a-z0-9]{0,15}")
_TRUST_CODE = re.compile(r"[A-Z][A-Z0-9]{1,11}")

_HEARTBEAT_TIMEOUT_S = 30
"""A client that says nothing for this long is disconnected; FLARE's own default is ten minutes."""

_ALLOWED_CLASSES = ["flip_flare.controller.NnunetController", "flip_flare.executor.NnunetExecutor"]
"""What a job may name. FLARE's own list would let the hub start any command at a Trust (its ClientAPIExecutor)."""

_LAUNCHER = {"id": "process_launcher", "path": "flip_flare.launcher.BoxedJobLauncher", "args": {}}

_THROUGH_THE_CLIENT = {"backbone": {"connect_generation": 1}}
"""Job processes don't connect to the hub themselves: from their box they reach the Trust's client only."""

_JOBS_ONLY = {
    "submit_job": "any",
    "manage_job": "any",
    "download_job": "any",
    "view": "any",
    "get_job_log": "any",
    "clone_job": "none",
    "operate": "none",
    "shell_commands": "none",
    "byoc": "none",
    "server-predeployed-flwr": "none",
}
"""The hub's rights, enforced by each party itself: no code in jobs, no reading of a Trust's files, no restarts."""


@dataclass(frozen=True, slots=True)
class Net:
    """A net's name, the Trusts in it and where its server listens. Raises ValueError for what is not well formed.

    forwarders: the port at which a Trust reaches the server's name, for those for which it is another.
    """

    name: str
    trusts: tuple[str, ...]
    port: int
    host: str = "localhost"
    forwarders: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _NET_NAME.fullmatch(self.name):
            raise ValueError(f"net: {self.name!r} must match {_NET_NAME.pattern}")
        if not self.trusts or len(set(self.trusts)) < len(self.trusts):
            raise ValueError("trusts: at least one, each once")
        for trust in self.trusts:
            if not _TRUST_CODE.fullmatch(trust):
                raise ValueError(f"trusts: {trust!r} must match {_TRUST_CODE.pattern}")
        if not 0 < self.port < 65536:
            raise ValueError(f"port: {self.port} must lie between 1 and 65535")
        check_forwarders(self.forwarders, self.trusts)

    def way_of(self, trust: str) -> dict[str, Any]:
        """What FLARE is told of how a Trust reaches the server, where that is not as the server says itself."""
        port = self.forwarders.get(trust)
        return {} if port is None else {PropKey.CONNECT_TO: {PropKey.HOST: self.host, PropKey.PORT: port}}


def provision(net: Net, output: Path) -> None:
    """Write the kits of `net` under `output`, or bring them up to date.

    Raises ValueError if a Trust that has a kit is missing in `net`: its certificate would stay valid, so a Trust leaves
    a net only with the net.
    """
    output = output.resolve()
    gone = sorted(_provisioned_trusts(output) - set(net.trusts))
    if gone:
        raise ValueError(f"trusts: {', '.join(gone)} cannot leave the net {net.name}; make a new net instead")
    output.mkdir(parents=True, exist_ok=True, mode=0o700)
    built = _build(net, output / _AUTHORITY)
    try:
        _install(built / net.host, output / SERVER_KIT)
        _install(built / ADMIN, output / ADMIN_KIT)
        for trust in net.trusts:
            _install(built / trust, output / trust)
    finally:
        shutil.rmtree(built)


def _provisioned_trusts(output: Path) -> set[str]:
    return {key.parent.parent.name for key in output.glob("*/startup/client.key")} - {ADMIN_KIT}


def _build(net: Net, authority: Path) -> Path:
    """Let FLARE make its kits, with the keys it made before; returns the folder they are in."""
    participants = [
        Participant(ParticipantType.SERVER, net.host, "hub", {PropKey.FED_LEARN_PORT: net.port}),
        Participant(ParticipantType.ADMIN, ADMIN, "hub", {PropKey.ROLE: AdminRole.PROJECT_ADMIN}),
        *(Participant(ParticipantType.CLIENT, trust, trust.lower(), net.way_of(trust)) for trust in net.trusts),
    ]
    project = Project(net.name, f"FLIP net {net.name}", participants)
    builders = [WorkspaceBuilder(_TEMPLATES), StaticFileBuilder(config_folder="config", scheme="grpc"), CertBuilder()]
    context = Provisioner(str(authority), builders).provision(project, logger=log)
    if context.get(CtxKey.BUILD_ERROR):
        raise RuntimeError(f"FLARE could not build the kits of {net.name}: {context.get(CtxKey.ERRORS)}")
    return Path(context[CtxKey.CURRENT_PROD_DIR])


def _install(built: Path, kit: Path) -> None:
    startup, local = kit / "startup", kit / "local"
    for folder in (startup, local, kit / "transfer"):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for source in sorted((built / "startup").iterdir()):
        if source.suffix in _STARTUP_SUFFIXES:
            replace_file(startup / source.name, source.read_bytes(), private=source.suffix == ".key")
    for source in sorted((built / "local").glob(f"*{_DEFAULT_SUFFIX}")):
        name = source.name.removesuffix(_DEFAULT_SUFFIX)
        replace_json(local / name, _policy(kit, name, json.loads(source.read_bytes())))
    if kit.name not in {SERVER_KIT, ADMIN_KIT}:
        replace_json(local / "comm_config.json", _THROUGH_THE_CLIENT)
        _add_nobodys_key(local / NOBODYS_KEY)


def _add_nobodys_key(file: Path) -> None:
    if not file.exists():
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        replace_file(file, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def _policy(kit: Path, name: str, default: dict[str, Any]) -> dict[str, Any]:
    """What stands in a kit's `local/NAME` instead of FLARE's default."""
    if name == "authorization.json":
        return {"format_version": "1.0", "permissions": {AdminRole.PROJECT_ADMIN: _JOBS_ONLY}}
    if name == "resources.json" and kit.name == SERVER_KIT:
        return _server_resources(default, kit / "store")
    if name == "resources.json" and kit.name != ADMIN_KIT:
        return _client_resources(default)
    return default


def _server_resources(default: dict[str, Any], store: Path) -> dict[str, Any]:
    default["class_allow_list"] = _ALLOWED_CLASSES
    default["servers"][0]["heart_beat_timeout"] = _HEARTBEAT_TIMEOUT_S
    default["snapshot_persistor"]["args"]["storage"]["args"]["root_dir"] = str(store / "snapshots")
    components = {component["id"]: component for component in default["components"]}
    components["job_scheduler"]["args"]["max_jobs"] = 1
    components["job_manager"]["args"]["uri_root"] = str(store / "jobs")
    del components["log_receiver"]
    return default | {"components": list(components.values())}


def _client_resources(default: dict[str, Any]) -> dict[str, Any]:
    """A Trust's log lines may hold what must not leave it, so no log goes to the hub. Jobs run in a box."""
    replaced = {"site_log_streamer", _LAUNCHER["id"]}
    components = [component for component in default["components"] if component["id"] not in replaced]
    return default | {
        "class_allow_list": _ALLOWED_CLASSES,
        "allow_log_streaming": False,
        "components": [*components, _LAUNCHER],
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flip_flare.provision", description="Make the kits of a net.")
    parser.add_argument("--net", required=True, help="the net's name, such as net1")
    parser.add_argument("--trusts", required=True, help="codes of its Trusts, separated by commas")
    parser.add_argument("--port", required=True, type=int, help="where its server listens")
    parser.add_argument("--host", default="localhost", help="the server's name, as its clients resolve it")
    parser.add_argument(
        "--through",
        action="append",
        default=[],
        type=parse_forwarder,
        metavar="TRUST=PORT",
        help="the port at which a Trust reaches the server's name, if it is another",
    )
    parser.add_argument("--output", required=True, type=Path, help="the folder of the kits")
    given = parser.parse_args()
    try:
        net = Net(given.net, tuple(given.trusts.split(",")), given.port, given.host, dict(given.through))
        provision(net, given.output)
    except ValueError as refused:
        parser.error(str(refused))


if __name__ == "__main__":
    main()
