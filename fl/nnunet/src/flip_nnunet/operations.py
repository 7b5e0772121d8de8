"""What a site can be asked, and how a failure of it is told."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from flip_nnunet.files import is_disk_full
from flip_nnunet.message import Message, SiteFailed, SiteFailure

_LOG = logging.getLogger(__name__)

Operation = Callable[[Message], Message]

_DISK_FULL = SiteFailure("disk-full", "the site's disk is full")


class Operations:
    """A site in one run: operations by name, each of which takes a message and answers with one.

    own: the run's folder at the site, there or not; it is on the disk that the run writes to.
    """

    def __init__(self, operations: Mapping[str, Operation], own: Path) -> None:
        self._operations = dict(operations)
        self._own = own

    def handle(self, operation: str, message: Message) -> Message:
        """Do one operation; a failure comes back as a message (`message.settle` raises it at the hub)."""
        if operation not in self._operations:
            return SiteFailure("operation-unknown", f"{operation!r} is no operation of a site").as_message()
        try:
            return self._operations[operation](message)
        except SiteFailed as failed:
            return failed.failure.as_message()
        except Exception as error:
            _LOG.exception("%s failed", operation)
            return (_DISK_FULL if is_disk_full(error, self._own) else self.unexpected(error)).as_message()

    def unexpected(self, error: Exception) -> SiteFailure:
        """What the hub hears of an error that is not foreseen: its type alone, as its text may name a case."""
        return SiteFailure("unexpected-error", f"{type(error).__name__}; the site's log has more")
