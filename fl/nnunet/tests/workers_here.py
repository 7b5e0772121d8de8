"""Sites whose workers live in the test's own process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from flip_nnunet.job import Job
from flip_nnunet.message import Answers, Message, settle
from flip_nnunet.operations import Operations
from flip_nnunet.worker import Worker

Change = Callable[[str, str, Message], Message]
"""What a test makes of a site's answer: operation, site, answer -> answer."""


def unchanged(_operation: str, _site: str, answer: Message) -> Message:
    return answer


class SitesHere:
    """`federation.Sites` by direct calls. Keeps every answer that left a site, as (operation, site, answer)."""

    def __init__(self, workers: Mapping[str, Operations], change: Change = unchanged) -> None:
        self.workers = dict(workers)
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


class WorkersHere(SitesHere):
    """The sites of a training, each with its data in a folder."""

    def __init__(
        self, data: dict[str, Path], work: Path, job: Job, minimum_cases: int = 1, change: Change = unchanged
    ) -> None:
        workers = {site: Worker(site, folder, work / site, job, minimum_cases) for site, folder in data.items()}
        super().__init__(workers, change)
