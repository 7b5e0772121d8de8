"""How fast does a service's event log reach Kafka?"""

from flip_chassis.database import connect
from flip_chassis.relay import relay
from flip_contracts.topics import PROJECT

from bench import peers
from bench.ground import Ground, bus_of
from bench.measuring import Series, in_turns, rate
from bench.report import Chapter, Scale, times
from bench.workload import write_log

_OURS = 20_000
_THEIRS = 5_000


async def run(ground: Ground, scale: Scale) -> Chapter:
    """Relay against faststream-outbox: a table full of edits, to the same broker."""
    ours, theirs = scale.of(_OURS), scale.of(_THEIRS)

    async def flip() -> float:
        (topic,) = ground.kafka.fresh_topics({PROJECT.name}).values()
        async with ground.database() as database, ground.records_of(topic) as ends:
            settings = ground.saying(database)
            async with connect(settings.postgres.get_secret_value()) as db:
                await write_log(db, topic, ours)
            async with relay(settings, bus_of(settings)):
                return await rate(ends.count, ours)

    async def outbox() -> float:
        (topic,) = ground.kafka.fresh_topics({PROJECT.name}).values()
        async with (
            ground.database() as database,
            ground.records_of(topic) as ends,
            peers.outbox(ground.sayer, database, topic, theirs) as (source, kafka),
            peers.outbox_relaying(source, kafka),
        ):
            return await rate(ends.count, theirs)

    flips, outboxes = await in_turns(scale.rounds, (flip, outbox))
    flip_series = Series("FLIP's relay", "as in production, one leader", "/s", flips)
    outbox_series = Series(
        "faststream-outbox",
        f"max_workers={peers.OUTBOX_WORKERS}, fetch_batch_size=terminal_flush_batch_size={peers.OUTBOX_FETCH},"
        " idempotent producer, acks=all",
        "/s",
        outboxes,
    )
    return Chapter(
        "Relay: from the event log to Kafka",
        f"A table with {ours:,} edits of 97 projects ({theirs:,} for the peer), keyed by project, 3 partitions. FLIP's"
        " relay keeps each project's order and its rows stay for replay; the peer deletes them and keeps no order.",
        (flip_series, outbox_series),
        (times(flip_series, outbox_series, 10),),
    )
