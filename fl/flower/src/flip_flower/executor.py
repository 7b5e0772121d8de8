"""Works on what a Trust's SuperNode receives: started by `flip_flower.supernode`, and lives as long.

It stands where Flower has its SuperExec, which would start a new process for every message and in it run whatever code
the hub has sent. This one runs one ClientApp, its own, and never looks at the hub's.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable
from pathlib import Path

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flip_nnunet.attempt import checked_run_id
from flip_nnunet.message import SiteFailure
from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode, SubStatus
from flwr.proto.message_pb2 import PullObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import GetRunRequest
from flwr.proto.runtime_pb2 import AcquireTaskRequest, SendTaskHeartbeatRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufClientInterceptor, ProtobufRequestContext
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

from flip_flower.kit import AUTHORITY_CERTIFICATE, EXECUTOR_CREDENTIAL, KEY, Net
from flip_flower.pause import Pause
from flip_flower.resident import AnswerUnwanted, Resident, TrainerEnded
from flip_flower.wire import Request, read_request, reply_content

log = logging.getLogger(__name__)

_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 0.5
_LOOK_S = 2.0
_RETRY_S = 0.5
_LAST_OPERATION = "stop"


class Hub:
    """Asks the hub, with the Trust's key, whether a run goes on: a SuperNode itself does not hear of an abort."""

    def __init__(self, kit: Path) -> None:
        key = load_ssh_private_key((kit / KEY).read_bytes(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError(f"{kit / KEY}: is not a key of an elliptic curve")
        self._client = FleetHttpClient.from_server_address(
            Net.read(kit).address,
            insecure=False,
            root_certificates=(kit / AUTHORITY_CERTIFICATE).read_bytes(),
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name="SuperNode"),
                NodeAuthHttpInterceptor(key, key.public_key()),
            ],
        )

    def goes_on(self, node_id: int, run_id: int) -> bool:
        """Whether the run does; a hub that cannot be asked has not ended it."""
        try:
            self._client.GetRun(GetRunRequest(node=Node(node_id=node_id), run_id=run_id))
        except httpx.HTTPStatusError as error:
            return not error.response.is_client_error
        except httpx.TransportError:
            return True
        return True


class Trainers:
    """The trainer of the run under way; at most one at a time, as a net takes one run after the other."""

    def __init__(self, site: str, goes_on: Callable[[int, int], bool]) -> None:
        self._site = site
        self._goes_on = goes_on
        self._resident: Resident | None = None
        self._flower_run = (0, 0)

    def ask(self, request: Request, node_id: int, flower_run: int) -> bytes:
        """The answer of the run's trainer, which is started if there is none.

        A trainer belongs to one attempt: that of another finds what it needs on disk. For one that took more than it
        may the answer says so. Raises `TrainerEnded` and `AnswerUnwanted`.
        """
        run_id = checked_run_id(str(request.job.get("run_id")))
        if self._flower_run != (node_id, flower_run):
            self.end()
        self._flower_run = (node_id, flower_run)
        resident = self._resident = self._resident or Resident(run_id, self._site)
        try:
            answer = resident.ask(request, lambda: self._goes_on(node_id, flower_run))
        except AnswerUnwanted:
            self.end()
            raise
        except TrainerEnded as ended:
            self.end()
            if ended.ending is None:
                raise
            return SiteFailure(ended.ending.code, ended.ending.detail).as_message().to_bytes()
        if request.operation == _LAST_OPERATION:
            self._resident = None
            resident.leave()
        return answer

    def tidy(self) -> None:
        """End the trainer of a run that is over."""
        if self._resident is not None and not self._goes_on(*self._flower_run):
            self.end()

    def end(self) -> None:
        resident, self._resident = self._resident, None
        if resident is not None:
            log.info("the trainer of run %s is ended", resident.run_id)
            resident.end()


def client_app(trainers: Trainers) -> ClientApp:
    """The one app that runs at a Trust: it hands a message on to the run's trainer."""
    app = ClientApp()

    @app.train()
    def operate(message: Message, context: Context) -> Message:
        request = read_request(message.content)
        answer = trainers.ask(request, context.node_id, context.run_id)
        return Message(reply_content(answer), reply_to=message)

    return app


class UntilOver:
    """Ends a task's wait for its message once its run is over.

    A SuperNode makes a task before it fetches the message. If the run is aborted meanwhile it gives the message up and
    keeps the task, which would wait for its parts for two hours.
    """

    def __init__(self, goes_on: Callable[[int, int], bool]) -> None:
        self._goes_on = goes_on
        self._asked_for: set[str] = set()

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        """Let a request pass; one for a part that was not there before, only while the run goes on."""
        request = context.message
        if isinstance(request, PullObjectRequest):
            if request.object_id in self._asked_for and not self._goes_on(request.node.node_id, request.run_id):
                raise AnswerUnwanted(f"Flower's run {request.run_id} is over")
            self._asked_for.add(request.object_id)
        return call_next(context)


class Executor:
    """Takes tasks of the SuperNode at `address`, one after the other."""

    def __init__(self, address: str, secret: bytes, app: ClientApp, goes_on: Callable[[int, int], bool]) -> None:
        self._address = address
        self._app = app
        self._goes_on = goes_on
        acquire = SuperExecAuthHttpInterceptor(
            master_secret=secret, protected_methods=["/flwr.proto.Runtime/AcquireTask"]
        )
        self._tasks = self._connect("SuperExec", acquire)

    def work_once(self) -> bool:
        """Work on a task if there is one; answers whether there was."""
        taken = self._tasks.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP]))
        if not (taken.HasField("task") and taken.token):
            return False
        token = RuntimeTokenHttpInterceptor(taken.token)
        with self._connect("flwr-clientapp", token, UntilOver(self._goes_on)) as task:
            heartbeat = HeartbeatSender(lambda: _beat(task))
            heartbeat.start()
            try:
                self._work_on(task)
            finally:
                heartbeat.stop()
        return True

    def _work_on(self, task: RuntimeHttpClient) -> None:
        try:
            message, context, _, _ = pull_task_input(task)
        except (AnswerUnwanted, ObjectPullError, RuntimeError) as error:
            log.warning("a task has no message: %s", error)
            push_task_output(task, None, SubStatus.FAILED, type(error).__name__)
            return
        try:
            reply = self._app(message, context)
            status, details = SubStatus.COMPLETED, ""
        except Exception as error:  # whatever it is, the hub must hear that there is no answer
            log.exception("a message could not be answered")
            status, details = SubStatus.FAILED, type(error).__name__
            reply = Message(Error(code=ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason=details), reply_to=message)
        push_message(task, reply, context)
        push_task_output(task, context, status, details)

    def _connect(self, component: str, *interceptors: ProtobufClientInterceptor) -> RuntimeHttpClient:
        return RuntimeHttpClient.from_server_address(
            self._address,
            insecure=True,
            root_certificates=None,
            interceptors=[RuntimeVersionHttpInterceptor(component_name=component), *interceptors],
        )


def _beat(task: RuntimeHttpClient) -> bool:
    try:
        return task.SendTaskHeartbeat(SendTaskHeartbeatRequest()).success
    except httpx.HTTPError:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flip_flower.executor", description="Work for a SuperNode.")
    parser.add_argument("--kit", required=True, type=Path, help="the Trust's kit")
    parser.add_argument("--site", required=True, help="the Trust's code")
    parser.add_argument("--port", required=True, type=int, help="where the SuperNode listens to its executor")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    hub, credential = Hub(given.kit), (given.kit / EXECUTOR_CREDENTIAL).read_bytes()
    trainers = Trainers(given.site, hub.goes_on)
    executor = Executor(f"127.0.0.1:{given.port}", credential, client_app(trainers), hub.goes_on)
    work(executor, trainers)


def work(executor: Executor, trainers: Trainers) -> None:
    """Work for ever; the SuperNode may take its time to start, and may refuse what an aborted run still wants."""
    pause, looked_at = Pause(_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S), time.monotonic()
    while True:
        try:
            worked = executor.work_once()
        except httpx.HTTPError as error:
            log.warning("the SuperNode did not serve its executor: %s", error)
            time.sleep(_RETRY_S)
            worked = False
        if worked:
            pause.succeeded()
            continue
        if time.monotonic() - looked_at > _LOOK_S:
            trainers.tidy()
            looked_at = time.monotonic()
        pause.wait()


if __name__ == "__main__":
    main()
