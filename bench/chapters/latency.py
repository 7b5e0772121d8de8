"""How soon after its commit does an event take effect in another service?"""

import asyncio
import time
from collections.abc import Sequence

from flip_chassis.bus import Record
from flip_chassis.database import database
from flip_chassis.handlers import Handlers
from flip_chassis.ids import uuid7
from flip_chassis.inbox import Inbox
from flip_chassis.relay import Relay
from flip_chassis.service import backbone
from flip_contracts.base import ProjectId
from flip_contracts.topics import PROJECT

from bench.ground import MIGRATIONS, Ground, bus_of
from bench.measuring import Series, percentile
from bench.report import Chapter, Goal, Scale
from bench.workload import edit, show_edit

_RATE = 200
_WARM_UP_S = 2.0
_MEASURED_S = 10.0
_LONELY_GAP_S = 0.37
_LONELY = 20
_PATIENCE_S = 60.0


async def run(ground: Ground, scale: Scale) -> Chapter:
    """Event log, relay, Kafka, inbox, commit: the whole way."""
    steady: list[list[float]] = []
    lonely: list[list[float]] = []
    warm_up = round(_WARM_UP_S * _RATE)
    for _ in range(scale.rounds):
        steady.append(await _way(ground, scale.of(round(_MEASURED_S * _RATE)), 1 / _RATE, warm_up))
        lonely.append(await _way(ground, scale.of(_LONELY), _LONELY_GAP_S, 3))

    def series(name: str, rounds: list[list[float]], percent: int) -> Series:
        return Series(name, f"p{percent}", "ms", tuple(percentile(round_, percent) for round_ in rounds))

    p50, p99 = series(f"{_RATE} events/s", steady, 50), series(f"{_RATE} events/s", steady, 99)
    return Chapter(
        "From commit to effect",
        "From the return of the commit that says an edit to that of the commit that shows it in another service,"
        f" {scale.of(round(_MEASURED_S * _RATE)):,} edits after {_WARM_UP_S:.0f} s of warming up. Both services run in"
        " one process here, which makes them wait for each other as they wouldn't in production.",
        (p50, p99, series(f"one event every {_LONELY_GAP_S} s", lonely, 50)),
        (
            Goal(f"commit to effect at {_RATE} events/s, p50", 10, p50.median, "ms", at_most=True),
            Goal(f"commit to effect at {_RATE} events/s, p99", 100, p99.median, "ms", at_most=True),
        ),
    )


async def _way(ground: Ground, count: int, gap_s: float, warm_up: int) -> list[float]:
    """The milliseconds from commit to effect of `count` edits, each of a project of its own."""
    ground.empty(PROJECT.name)
    committed: dict[bytes, float] = {}
    shown: dict[bytes, float] = {}
    all_shown = asyncio.Event()
    async with ground.database() as said, ground.database() as heard:
        settings = ground.hearing(heard)
        bus = bus_of(settings)
        async with backbone(ground.saying(said), MIGRATIONS, []) as saying, database(settings, MIGRATIONS) as pool:
            inbox = Inbox(settings, pool, Handlers(settings, [show_edit]), Relay(settings, bus))

            async def take(records: Sequence[Record]) -> bool:
                done = await inbox.take(records)
                now = time.perf_counter()
                shown.update((record.key or b"", now) for record in records)
                if len(shown) == warm_up + count:
                    all_shown.set()
                return done

            patience_s = _PATIENCE_S + (warm_up + count) * gap_s
            async with bus.hearing([PROJECT.name], take), asyncio.timeout(patience_s):
                began = time.perf_counter()
                for number in range(warm_up + count):
                    await asyncio.sleep(max(0.0, began + number * gap_s - time.perf_counter()))
                    project_id = ProjectId(uuid7())
                    async with saying.working() as work:
                        await work.say(edit(number, project_id))
                        committed[str(project_id).encode()] = time.perf_counter()
                await all_shown.wait()
    measured = list(committed)[warm_up:]
    return [1000 * (shown[key] - committed[key]) for key in measured]
