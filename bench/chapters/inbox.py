"""How fast do events take effect, once each, in a table?"""

import asyncpg
from flip_chassis.database import connect
from flip_chassis.service import backbone
from flip_contracts.topics import PROJECT

from bench import peers
from bench.ground import MIGRATIONS, Ground
from bench.measuring import Series, in_turns, rate
from bench.report import Chapter, Scale, times
from bench.workload import say_all, show_edit, shown

_OURS = 20_000
_ONE_BY_ONE = 1_500
_CONCURRENT = 4_000


async def run(ground: Ground, scale: Scale) -> Chapter:
    """Inbox against FastStream, one by one and concurrent: the same records, the same dedupe, the same projection."""
    ours, single, many = scale.of(_OURS), scale.of(_ONE_BY_ONE), scale.of(_CONCURRENT)
    ground.empty(PROJECT.name)
    await say_all(ground, PROJECT.name, ours)

    async def flip() -> float:
        async with (
            ground.database() as database,
            connect(database.owner) as looking,
            backbone(ground.hearing(database), MIGRATIONS, [show_edit]),
        ):
            return await rate(shown(looking), ours)

    async def one_by_one(workers: int) -> float:
        async with (
            ground.database() as database,
            connect(database.owner) as looking,
            asyncpg.create_pool(database.owner, min_size=workers, max_size=workers) as pool,
            peers.one_by_one(ground.hearer, ground.group(), pool, PROJECT.name, workers),
        ):
            return await rate(shown(looking), single)

    async def concurrent() -> float:
        async with (
            ground.database() as database,
            connect(database.owner) as looking,
            asyncpg.create_pool(database.owner, min_size=peers.CONCURRENT, max_size=peers.CONCURRENT) as pool,
            peers.concurrent(ground.hearer, ground.group(), pool, PROJECT.name),
        ):
            return await rate(shown(looking), many)

    figures = await in_turns(
        scale.rounds, (flip, lambda: one_by_one(1), lambda: one_by_one(PROJECT.partitions), concurrent)
    )
    names = (
        ("FLIP's inbox", "as in production"),
        ("FastStream, one by one", "ack_policy=NACK_ON_ERROR, a transaction and a commit each"),
        ("FastStream, a consumer a partition", f"the same with max_workers={PROJECT.partitions}"),
        (
            "faststream-concurrent-aiokafka",
            f"concurrency_limit={peers.CONCURRENT}, commit_batch_size={peers.COMMIT_EVERY}, a transaction each",
        ),
    )
    flip_series, *others = [
        Series(name, settings, "/s", values) for (name, settings), values in zip(names, figures, strict=True)
    ]
    return Chapter(
        "Inbox: from Kafka to a projection",
        f"{ours:,} edits of 97 projects ({single:,} for one by one, {many:,} for concurrent), deduplicated by event id,"
        " each an upsert. FLIP and one by one keep each project's order; concurrent gives it up.",
        (flip_series, *others),
        (times(flip_series, others[0], 10), times(flip_series, others[2], 8)),
    )
