"""A Trust's SuperNode and, beside it, what does its work: started by `flip_flower.client`.

The SuperNode is Flower's own, in the mode in which it starts no program: it takes the net's messages, and
`flip_flower.executor` works on them. If either ends, both do.
"""

from __future__ import annotations

import argparse
import importlib
import os
import secrets
import socket
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
from flip_nnunet.files import replace_file
from flwr.common.constant import Status
from flwr.supercore.retry import RetryInvoker
from flwr.supernode.cli import flower_supernode
from flwr.supernode.nodestate.in_memory_nodestate import InMemoryNodeState

from flip_flower.kit import AUTHORITY_CERTIFICATE, EXECUTOR_CREDENTIAL, KEY, Net
from flip_flower.pause import Pause

_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 1.0
_NO_MESSAGE_S = 3.0
"""What Flower's SuperNode asks to sleep when there is no message; shorter sleeps are within its work on one."""
_AT_WORK_S = 0.5
_UNFINISHED = (Status.PENDING, Status.STARTING, Status.RUNNING)
_LOOPBACK = "127.0.0.1"


def run(kit: Path, site: str) -> None:
    """Run until the SuperNode or its executor ends; never returns."""
    net = Net.read(kit)
    replace_file(kit / EXECUTOR_CREDENTIAL, secrets.token_bytes(32), private=True)
    port = _free_port()
    command = [sys.executable, "-u", "-m", "flip_flower.executor", "--kit", str(kit), "--site", site]
    executor = subprocess.Popen([*command, "--port", str(port)])  # noqa: S603 - this package's own
    threading.Thread(target=_end_with, args=(executor,), daemon=True).start()
    _look_for_messages_often()
    _outlast_broken_handshakes()
    _answer_for_failed_tasks()
    sys.argv = [
        "flower-supernode",
        *("--superlink", net.address),
        *("--root-certificates", str(kit / AUTHORITY_CERTIFICATE)),
        *("--auth-supernode-private-key", str(kit / KEY)),
        *("--isolation", "process"),
        *("--superexec-auth-secret-file", str(kit / EXECUTOR_CREDENTIAL)),
        *("--host", _LOOPBACK),
        *("--port", str(port)),
        *("--node-config", f'site="{site}"'),
    ]
    _serve()


def _serve() -> None:
    """Be the SuperNode and end with it: where Flower gives up, a thread of its own would keep the process for ever."""
    try:
        flower_supernode()
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(1)


def _look_for_messages_often() -> None:
    """Flower's SuperNode rests for 3 s whenever it finds no message, which no setting changes: 30 s in a short run."""
    idle, at_work = Pause(_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S), Pause(_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S)

    def sleep(seconds: float) -> None:
        now, other = (at_work, idle) if seconds < _NO_MESSAGE_S else (idle, at_work)
        other.succeeded()
        now.wait()

    loop = importlib.import_module("flwr.supernode.start_client_internal")
    loop.time = SimpleNamespace(sleep=sleep)  # type: ignore[attr-defined]


def _outlast_broken_handshakes() -> None:
    """Flower gives up for good on every error of TLS, and a forwarder whose hub is down makes one each time."""
    connection = importlib.import_module("flwr.supernode.fleet_http_connection")
    make = connection.make_simple_http_retry_invoker

    def enduring() -> RetryInvoker:
        invoker: RetryInvoker = make()
        gives_up = invoker.should_giveup
        invoker.should_giveup = lambda error: not _is_of_the_way(error) and bool(gives_up and gives_up(error))
        return invoker

    connection.make_simple_http_retry_invoker = enduring  # type: ignore[attr-defined]


def _is_of_the_way(error: Exception) -> bool:
    """Whether the way to the hub broke off, and not what the hub showed is at fault."""
    return isinstance(error, httpx.TransportError) and "certificate" not in str(error).lower()


def _answer_for_failed_tasks() -> None:
    """Answer with an error for a task that ended without a reply, as Flower does for one that is heard of no more.

    It waits for each task's reply, for ever, and takes no message meanwhile. `flip_flower.executor` has none where the
    run was over before it had the whole message.
    """
    loop = importlib.import_module("flwr.supernode.start_client_internal")
    push = loop._push_messages

    def push_messages(state: InMemoryNodeState, **others: Any) -> None:
        while state.get_tasks(statuses=_UNFINISHED):
            loop.time.sleep(_AT_WORK_S)
        state._on_task_tokens_expired(list(state.get_tasks(statuses=[Status.FINISHED])))
        if any(each.message.metadata.reply_to_message_id for each in state.msg_store.values()):
            push(state=state, **others)

    loop._push_messages = push_messages  # type: ignore[attr-defined]


def _end_with(executor: subprocess.Popen[bytes]) -> None:
    executor.wait()
    os._exit(1)


def _free_port() -> int:
    with socket.create_server((_LOOPBACK, 0)) as probe:
        return probe.getsockname()[1]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flip_flower.supernode", description="Run a Trust's SuperNode.")
    parser.add_argument("--kit", required=True, type=Path, help="the Trust's kit")
    parser.add_argument("--site", required=True, help="the Trust's code")
    given = parser.parse_args()
    run(given.kit.resolve(), given.site)


if __name__ == "__main__":
    main()
