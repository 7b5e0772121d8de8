"""The SuperLink of a net, with one port for the Trusts and one for the hub: started by `flip_flower.server`.

Flower serves everything at one port, and asks for a key only where SuperNodes talk to it: whoever reaches that port
could start a run, which is code at the hub. Here what Trusts connect to serves SuperNodes and nothing else; the rest,
for the driver and Flower's own processes, listens at the loopback address.
"""

from __future__ import annotations

import argparse
import socket
from pathlib import Path

import uvicorn
from flwr.common.constant import (
    ISOLATION_MODE_SUBPROCESS,
    NOOP_ACCOUNT_NAME,
    NOOP_FLWR_AID,
    TRANSPORT_TYPE_GRPC_RERE,
    Status,
    SubStatus,
)
from flwr.server.superlink.linkstate import LinkState
from flwr.supercore.constant import NodeStatus
from flwr.superlink.auth_plugin import NoOpControlAuthnPlugin
from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
from flwr.superlink.config_loader import SuperLinkLifespanConfig
from flwr.superlink.main import create_app
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from flip_flower.kit import AUTHORITY_CERTIFICATE, KEY, SERVER_CERTIFICATE, TRUST_KEYS, Net

_FLEET = "/v1/fleet/"
"""Where Flower serves SuperNodes."""
_LOOPBACK, _EVERY_ADDRESS = "127.0.0.1", ""


class FleetOnly:
    """Answers 404 to all that comes in at the Trusts' port and is not for SuperNodes."""

    def __init__(self, app: ASGIApp, port: int) -> None:
        self._app = app
        self._port = port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["server"][1] != self._port or _is_for_nodes(scope):
            await self._app(scope, receive, send)
        else:
            await PlainTextResponse("Not Found", status_code=404)(scope, receive, send)


def _is_for_nodes(scope: Scope) -> bool:
    return scope["type"] == "http" and scope["path"].startswith(_FLEET)


def serve(kit: Path) -> None:
    """Serve until the process is ended."""
    net = Net.read(kit)
    config = _config(kit, net)
    app = create_app(config, SuperLinkLifespan)
    state = app.state.linkstate_factory.state()
    register_trusts(kit, state)
    forget_connections(state)
    end_runs(state)
    let_nodes_begin_anew(state)
    app.add_middleware(FleetOnly, port=net.port)
    server = uvicorn.Server(
        uvicorn.Config(app, ssl_keyfile=config.ssl_keyfile, ssl_certfile=config.ssl_certfile, access_log=False)
    )
    control = socket.create_server((_LOOPBACK, net.control_port))
    fleet = socket.create_server((_EVERY_ADDRESS, net.port))
    server.run(sockets=[control, fleet])


def register_trusts(kit: Path, state: LinkState) -> None:
    """Make the keys of the net's Trusts known to the SuperLink, each under its Trust's code."""
    for path in sorted((kit / TRUST_KEYS).glob("*.pem")):
        key = path.read_bytes()
        if state.get_node_id_by_public_key(key) is None:
            state.create_node(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, key, 0, name=path.stem)


def forget_connections(state: LinkState) -> None:
    """Count a node as connected only once it has spoken to this process: the database remembers those of the last."""
    for node in state.get_node_info(statuses=[NodeStatus.ONLINE]):
        state.deactivate_node(node.node_id)


def end_runs(state: LinkState) -> None:
    """End what the last process left running: its ServerApps ended with it, as Flower notices after a minute."""
    for run in state.get_run_info(statuses=[Status.STARTING, Status.RUNNING]):
        if run.primary_task_id is not None:
            state.finish_task(run.primary_task_id, SubStatus.FAILED, "The SuperLink was started anew.")
        state.cleanup_run(run.run_id)


def let_nodes_begin_anew(state: LinkState) -> None:
    """Take a Trust's node at once when it begins anew.

    Flower refuses it as long as the one before counts as connected: for a minute after that was killed. There is one
    node a Trust, whose keeper sees to it that nothing of the one before is left.
    """
    activate = state.activate_node

    def activate_anew(node_id: int, heartbeat_interval: float) -> bool:
        state.deactivate_node(node_id)
        return activate(node_id, heartbeat_interval)

    state.activate_node = activate_anew  # type: ignore[method-assign]


def _config(kit: Path, net: Net) -> SuperLinkLifespanConfig:
    authority, certificate, key = kit / AUTHORITY_CERTIFICATE, kit / SERVER_CERTIFICATE, kit / KEY
    store = kit / "store"
    store.mkdir(exist_ok=True, mode=0o700)
    return SuperLinkLifespanConfig(
        control_address=net.control,
        health_server_address=None,
        host=_LOOPBACK,
        port=net.control_port,
        insecure=False,
        certificates=(authority.read_bytes(), certificate.read_bytes(), key.read_bytes()),
        superexec_auth_secret=None,
        authn_plugin=NoOpControlAuthnPlugin(),
        event_log_plugin=None,
        fleet_event_log_plugin=None,
        enable_event_log=False,
        artifact_provider=None,
        enable_supernode_auth=True,
        fleet_api_type=TRANSPORT_TYPE_GRPC_RERE,
        fleet_api_address=None,
        simulation=False,
        ssl_ca_certfile=str(authority),
        ssl_certfile=str(certificate),
        ssl_keyfile=str(key),
        database=str(store / "state.db"),
        isolation=ISOLATION_MODE_SUBPROCESS,
        runtime_dependency_install=False,
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flip_flower.superlink", description="Serve a net.")
    parser.add_argument("--kit", required=True, type=Path, help="the server's kit")
    serve(parser.parse_args().kit.resolve())


if __name__ == "__main__":
    main()
