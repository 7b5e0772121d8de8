"""What every framework's driver has to do: it answers everything it is given, with a code for what it cannot do."""

from __future__ import annotations

import json
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

MALFORMED = (
    ("not json", "Expecting value"),
    ("[1]", "dictionary"),
    ('{"op": "reboot"}', "reboot"),
    ('{"op": "status"}', "job"),
    ('{"op": "status", "job": "x", "force": true}', "force"),
)
"""Lines that are no request, and what the refusal names."""


class DriverSuite(ABC):
    """A framework's test class inherits the tests."""

    package: ClassVar[str]
    """What binds the framework: its driver is started."""

    @abstractmethod
    def make_kits(self, folder: Path) -> None:
        """Make the kits of a net whose server is down."""

    @pytest.fixture(scope="class")
    def driver(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
        """A driver of a net whose server is down."""
        folder = tmp_path_factory.mktemp("down")
        self.make_kits(folder)
        command = self._command(folder / "admin", folder / "jobs")
        process = subprocess.Popen(  # noqa: S603 - this project's own modules
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        yield process
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(10) == 0

    @pytest.mark.parametrize(
        ("line", "named"),
        [
            *MALFORMED,
            (
                '{"op": "submit", "run_id": "r", "attempt": 1, "trusts": ["KCH"], "run_folder": "/r", "job": {}}',
                "run_id",
            ),
        ],
    )
    def test_a_malformed_request_is_refused_by_code_and_the_driver_goes_on(
        self, driver: subprocess.Popen[str], line: str, named: str
    ):
        reply = answer(driver, line)
        assert reply["ok"] is False
        assert reply["error"]["code"] == "request-invalid"
        assert named in reply["error"]["detail"]

    def test_a_net_that_is_down_is_said_so_and_the_reply_repeats_the_id(self, driver: subprocess.Popen[str]):
        reply = answer(driver, '{"id": "q7", "op": "connected"}')
        assert (reply["id"], reply["ok"], reply["error"]["code"]) == ("q7", False, "net-unreachable")

    def test_a_folder_that_is_no_admin_kit_is_refused(self, tmp_path: Path):
        command = self._command(tmp_path, tmp_path)
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - as above
        assert done.returncode == 2
        assert "--admin-kit" in done.stderr

    def _command(self, admin_kit: Path, jobs: Path) -> list[str]:
        return [sys.executable, "-m", f"{self.package}.driver", "--admin-kit", str(admin_kit), "--jobs", str(jobs)]


def answer(driver: subprocess.Popen[str], line: str) -> dict[str, Any]:
    assert driver.stdin is not None
    assert driver.stdout is not None
    driver.stdin.write(line + "\n")
    driver.stdin.flush()
    return json.loads(driver.stdout.readline())
