"""Sites whose workers live in the test's own process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from flip_nnunet.job import Job
from flip_nnunet.message import Answers, Message, settle
from flip_nnunet.operations import Operations
from flip_nnunet.worker import Worker

Change = Callable[[str, str, Message], Message]
"""What a test makes of a site's answer: operation, site, answer -> answer."""


def _unchanged(_operation: str, _site: str, answer: Message) -> Message:
    return answer


class WorkersHere:
    """`federation.Sites` by direct calls. Keeps every answer that left a site, as (operation, site, answer)."""

    def __init__(
        self, data: dict[str, Path], work: Path, job: Job, minimum_cases: int = 1, change: Change = _unchanged
    ) -> None:
        self.workers: dict[str, Operations] = {
            site: Worker(site, folder, work / site, job, minimum_cases) for site, folder in data.items()
        }
        self.answers: list[tuple[str, str, Message]] = []
        self._change = change

    def names(self) -> list[str]:
        return list(self.workers)

    def ask(self, operation: str, message: Message, sites: Sequence[str] | None = None) -> Answers:
        for site in self.names() if sites is None else sites:
            answer = self.workers[site].handle(operation, Message.from_bytes(message.to_bytes()))
            changed = self._change(operation, site, answer)
            self.answers.append((operation, site, changed))
            yield site, changed

    def settled(self, operation: str, message: Message) -> dict[str, Message]:
        """Every site's reply, once all have answered."""
        return settle(operation, self.ask(operation, message))
