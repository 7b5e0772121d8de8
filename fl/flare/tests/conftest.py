"""One net for all tests that need one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flip_flare.testing import LocalNet

pytest.register_assert_rewrite("flip_nnunet.testing.net_suite", "flip_nnunet.testing.driver_suite")


@pytest.fixture(scope="session")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalNet]:
    with LocalNet(tmp_path_factory.mktemp("net")) as local:
        local.start_all()
        yield local
