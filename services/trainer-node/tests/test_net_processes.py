import asyncio
import os
import sys
from pathlib import Path
from typing import get_args

import pytest
from flip_chassis.testing import eventually
from flip_contracts.projects import Framework
from flip_trainer_node.processes import Kept, environment
from flip_trainer_node.runtimes import RUNTIMES


@pytest.mark.parametrize("framework", get_args(Framework))
def test_a_process_is_told_no_secret_of_the_service(framework: Framework, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLIP_POSTGRES", "postgresql://u:secret@h/d")
    monkeypatch.setenv("FLIP_S3_SECRET_KEY", "secret")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    site = RUNTIMES[framework].site(Path("/runs"), 10, {"memory_mib": 4096})
    told = environment(**site)
    assert {name: value for name, value in told.items() if name.startswith("FLIP_")} == site
    assert told["CUDA_VISIBLE_DEVICES"] == "1"
    assert told["PATH"] == os.environ["PATH"]


async def test_a_process_that_dies_is_started_again_and_ends_with_its_keeper(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    code = f"import os, time; open({str(pids)!r}, 'a').write(f'{{os.getpid()}}\\n'); time.sleep(600)"
    starts: list[int] = []

    async def started() -> None:
        starts.append(1)

    kept = Kept("sleeper", (sys.executable, "-c", code), environment(), tmp_path / "log", started)
    keeping = asyncio.create_task(kept.keep())

    async def started_twice() -> list[int] | None:
        found = [int(pid) for pid in pids.read_text().split()] if pids.exists() else []
        if len(found) == 1 and len(starts) == 1:
            os.kill(found[0], 9)
            starts.append(1)
        return found if len(found) == 2 else None

    first, second = await eventually(started_twice)
    assert first != second
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    with pytest.raises(ProcessLookupError):
        os.kill(second, 0)
