"""What the plugin does for a test run as a whole."""

import subprocess
import sys
from pathlib import Path

_A_SERVICE_THAT_CANT_GO_ON = """
import os, signal

def test_before():
    assert not "what went wrong before"

def test_service():
    print("the broker is gone")
    os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_run_that_a_service_of_its_own_ends_says_what_failed_and_what_was_logged(tmp_path: Path):
    (tmp_path / "test_it.py").write_text(_A_SERVICE_THAT_CANT_GO_ON)
    command = [sys.executable, "-m", "pytest", "-q"]
    run = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 2
    assert "FAILED test_it.py::test_before" in run.stdout
    assert "the broker is gone" in run.stderr
