"""What goes wrong with a run's files at the hub and isn't mended by trying again."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from flip_contracts.base import ReasonCode

_CODES: dict[int | None, ReasonCode] = {
    errno.ENOSPC: "hub-disk-full",
    errno.EDQUOT: "hub-disk-full",
    errno.ENOENT: "hub-file-missing",
    errno.EACCES: "hub-disk-refuses",
    errno.EPERM: "hub-disk-refuses",
    errno.EROFS: "hub-disk-refuses",
    errno.EIO: "hub-disk-broken",
}


class HubDiskFailed(Exception):
    """A file can't be read or written at the hub; `code` says why."""

    def __init__(self, code: ReasonCode) -> None:
        super().__init__(code)
        self.code = code


@contextmanager
def hub_disk() -> Iterator[None]:
    """Work on files of a run at the hub. Raises HubDiskFailed; what the network did comes through as it is."""
    try:
        yield
    except OSError as error:
        if error.errno not in _CODES:
            raise
        raise HubDiskFailed(_CODES[error.errno]) from error
