"""Which trouble with files at the hub is told as such, and which is the network's."""

import errno
from pathlib import Path

import pytest
from flip_trainer_node.hub_disk import HubDiskFailed, hub_disk


def test_a_full_disk_and_a_missing_file_are_told_by_their_codes(tmp_path: Path) -> None:
    with pytest.raises(HubDiskFailed) as full, hub_disk():
        Path("/dev/full").write_text("x")
    with pytest.raises(HubDiskFailed) as missing, hub_disk():
        (tmp_path / "round").read_bytes()
    assert (full.value.code, missing.value.code) == ("hub-disk-full", "hub-file-missing")


@pytest.mark.parametrize(
    "error", [ConnectionResetError(errno.ECONNRESET, ""), TimeoutError(), OSError(errno.EHOSTUNREACH, "")]
)
def test_a_network_that_fails_is_no_trouble_of_the_disk(error: OSError) -> None:
    with pytest.raises(OSError) as raised, hub_disk():  # noqa: PT011 - it must be the very same
        raise error
    assert raised.value is error
