"""Crash points are passed by nobody until a test arms them."""

import subprocess
import sys

from flip_chassis import crash

DIES = """
import os, signal
from flip_chassis import crash
crash.point("inbox.polled")
crash.arm(lambda point: os.kill(os.getpid(), signal.SIGKILL) if point == "relay.sent" else None)
crash.point("inbox.polled")
print("alive", flush=True)
crash.point("relay.sent")
print("still alive", flush=True)
"""


def test_nobody_is_armed_until_a_test_is():
    for point in crash.POINTS:
        crash.point(point)


def test_an_armed_process_dies_at_its_point_and_at_no_other():
    ended = subprocess.run([sys.executable, "-c", DIES], capture_output=True, text=True, check=False, timeout=60)
    assert (ended.returncode, ended.stdout) == (-9, "alive\n")
