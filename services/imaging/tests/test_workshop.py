"""Processes for work on pixels: a crash is one study's failure, and none is left behind."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from flip_chassis.testing import eventually
from flip_imaging.convert import convert_series
from flip_imaging.ports import ConversionFailed, TimedOut, WorkerLost
from flip_imaging.workshop import workshop

pytestmark = pytest.mark.requirement("IMG-3")


async def test_a_crash_fails_its_own_work_and_the_next_gets_a_new_process() -> None:
    with workshop(1, limit_s=60) as shop:
        with pytest.raises(WorkerLost):
            await shop.run(os._exit, 139)
        assert await shop.run(os.getpid) != os.getpid()


async def test_a_typed_failure_comes_back_as_what_it_is(tmp_path: Path) -> None:
    with workshop(1, limit_s=60) as shop, pytest.raises(ConversionFailed, match="no image series"):
        await shop.run(convert_series, [], tmp_path / "image.nii.gz")


async def test_work_without_end_is_given_up() -> None:
    with workshop(1, limit_s=0.5) as shop, pytest.raises(TimedOut):
        await shop.run(time.sleep, 5)


async def test_no_process_outlives_a_killed_service() -> None:
    service = subprocess.Popen(  # noqa: ASYNC220 - it prints one line and waits
        [sys.executable, "-c", SERVICE], stdout=subprocess.PIPE, text=True
    )
    assert service.stdout is not None
    worker = int(await asyncio.to_thread(service.stdout.readline))
    service.kill()
    service.wait()

    async def is_gone() -> bool:
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return True
        return False

    assert await eventually(is_gone)


SERVICE = """
import asyncio, os
from flip_imaging.workshop import workshop

async def serve():
    with workshop(1, limit_s=60) as shop:
        print(await shop.run(os.getpid), flush=True)
        await asyncio.Event().wait()

if __name__ == "__main__":
    asyncio.run(serve())
"""
