"""The hub's hand on a net: the `driver` of its framework's package, a child that answers lines of JSON."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import orjson
from flip_chassis.telemetry import log
from flip_contracts.base import TrustCode

from flip_trainer_node.processes import end

JobState = Literal["waiting", "running", "completed", "aborted", "failed", "lost"]
_PATIENCE_S = 90.0
_LONGEST_LINE = 1 << 24
_SILENT = "driver-silent"
_PASSES = frozenset({_SILENT, "net-unreachable", "no-sites"})
_MAY_PASS = frozenset({"internal-error", "net-refuses-driver"})
_WRONG_IN_ITSELF = frozenset({"job-invalid", "request-invalid"})


class DriverRefused(Exception):
    """The driver can't do what it was asked; `code` is one of the driver's own, or `driver-silent`."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail

    @property
    def passes(self) -> bool:
        """Whether it is a part that is away, which comes back."""
        return self.code in _PASSES

    @property
    def may_pass(self) -> bool:
        """Whether it could be a server that is just starting. All else is no better asked again."""
        return self.code in _MAY_PASS

    @property
    def is_of_the_run(self) -> bool:
        """Whether every net would refuse it: the job is wrong in itself."""
        return self.code in _WRONG_IN_ITSELF


@dataclass(slots=True)
class Driver:
    """Asks one thing at a time; a driver that died or hangs is started anew."""

    command: Sequence[str]
    environment: Mapping[str, str]
    logs: Path
    process: asyncio.subprocess.Process | None = None
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)
    last_id: int = 0

    async def connected(self) -> frozenset[TrustCode]:
        """The Trusts that are connected to the net's server."""
        return frozenset((await self._ask("connected"))["sites"])

    async def submit(
        self, run_id: str, attempt: int, trusts: Sequence[TrustCode], run_folder: Path, job: Mapping[str, Any]
    ) -> str:
        """Hand a job to the framework and return its id there; the same attempt always has the same."""
        answer = await self._ask(
            "submit", run_id=run_id, attempt=attempt, trusts=list(trusts), run_folder=str(run_folder), job=job
        )
        return answer["job"]

    async def state(self, job: str) -> JobState:
        """How the job stands. `lost`: the server died while it ran."""
        return (await self._ask("status", job=job))["state"]

    async def running(self) -> frozenset[str]:
        """The jobs that have a process at the server."""
        return frozenset((await self._ask("running"))["jobs"])

    async def abort(self, job: str) -> None:
        """End the job at the server and at every Trust; one that is over stays as it is."""
        await self._ask("abort", job=job)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._drop()

    async def _ask(self, op: str, **request: Any) -> dict[str, Any]:
        async with self.busy:
            self.last_id += 1
            line = orjson.dumps({"id": self.last_id, "op": op, **request})
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    answer = await self._exchange(line)
            except (TimeoutError, OSError, EOFError) as error:
                log.warning("the driver is started anew", asked=op, reason=type(error).__name__)
                await self._drop()
                raise DriverRefused(_SILENT, f"no answer to {op}") from error
        if not answer["ok"]:
            raise DriverRefused(answer["error"]["code"], answer["error"]["detail"])
        return answer["result"]

    async def _exchange(self, line: bytes) -> dict[str, Any]:
        process = self.process or await self._start()
        if process.stdin is None or process.stdout is None:
            raise EOFError
        process.stdin.write(line + b"\n")
        await process.stdin.drain()
        answer = await process.stdout.readline()
        if not answer.endswith(b"\n"):
            raise EOFError
        return orjson.loads(answer)

    async def _start(self) -> asyncio.subprocess.Process:
        self.logs.parent.mkdir(parents=True, exist_ok=True)
        with self.logs.open("ab") as logs:
            self.process = await asyncio.create_subprocess_exec(
                *self.command,
                env=self.environment,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=logs,
                start_new_session=True,
                limit=_LONGEST_LINE,
            )
        return self.process

    async def _drop(self) -> None:
        process, self.process = self.process, None
        if process is not None:
            await end(process)
