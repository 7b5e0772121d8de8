"""How fast is a projection rebuilt from the log?"""

import uvloop
from flip_chassis.access import user_handlers
from flip_chassis.database import connect
from flip_chassis.handlers import Handlers
from flip_chassis.replay import CHASSIS_TABLES, Replay
from flip_chassis.service import collect_less_garbage
from flip_chassis.settings import Settings
from flip_contracts.topics import PROJECT
from flip_local.testing import Database

from bench.alone import Measured, alone
from bench.ground import Ground, bus_of
from bench.measuring import Series
from bench.report import Chapter, Goal, Scale
from bench.workload import PROJECT_IDS, edit, show_edit

TABLES = (*CHASSIS_TABLES, "project_view")
_EVENTS = 1_000_000
_EVENTS_A_PROJECT = 50
_FEW = 10
_MOST_ROUNDS = 3

_WRITE = """
INSERT INTO event_log (id, topic, key, stream_version, type, time, actor, correlation_id, payload, local)
SELECT gen_random_uuid(), $2, project, 1 + number / $5::int, $3, now(), 'service:bench', gen_random_uuid(),
    convert_to(replace($4, '{id}', project), 'UTF8'), false
FROM generate_series(0, $1 - 1) AS number, LATERAL (SELECT md5((number % $5::int)::text)::uuid::text AS project) AS its
ORDER BY number
"""
_SHOW = """
INSERT INTO project_view (project_id, name, edits)
SELECT key::uuid, convert_from(payload, 'UTF8')::json ->> 'name', count(*) FROM event_log GROUP BY 1, 2
"""


async def run(ground: Ground, scale: Scale) -> Chapter:
    """A service's own projection, into a shadow table, compared with the one that stands."""
    events, rounds = scale.of(_EVENTS), min(scale.rounds, _MOST_ROUNDS)
    of_many = await _rebuilds(ground, events, rounds)
    of_few = await _rebuilds(ground, events // _FEW, rounds)
    rates = Series(f"{events:,} events", "one upsert each", "/s", tuple(events / each.seconds for each in of_many))
    return Chapter(
        "Rebuilding a projection",
        f"An event log of {events:,} edits, {_EVENTS_A_PROJECT} a project, replayed into a shadow table whose checksum"
        " is compared with the standing one; in a process of its own. The time holds all of it, from connecting to the"
        " comparison.",
        (
            rates,
            Series(f"{events:,} events", "peak of memory", "MiB", tuple(each.peak_mib for each in of_many)),
            Series(f"{events // _FEW:,} events", "peak of memory", "MiB", tuple(each.peak_mib for each in of_few)),
        ),
        (Goal("projection rebuild", 40_000, rates.median, "/s"),),
    )


async def _rebuilds(ground: Ground, events: int, rounds: int) -> list[Measured]:
    async with ground.database() as database:
        settings = ground.saying(database)
        await _write(database, events)
        return [await alone(_rebuild, settings, events) for _ in range(rounds)]


async def _write(database: Database, events: int) -> None:
    body = edit(1, PROJECT_IDS[0]).encode().decode().replace(str(PROJECT_IDS[0]), "{id}")
    projects = events // _EVENTS_A_PROJECT
    async with connect(database.owner) as db:
        await db.execute(_WRITE, events, PROJECT.name, show_edit.message.type_name, body, projects)
        await db.execute(_SHOW)


def _rebuild(settings: Settings, events: int) -> None:
    collect_less_garbage()
    replay = Replay(settings, bus_of(settings), Handlers(settings, [*user_handlers, show_edit]), TABLES)
    outcome = uvloop.run(replay.run(swap=False))
    differing = sum(compared.differing for compared in outcome.tables)
    if (outcome.events, differing) != (events, 0):
        raise RuntimeError(f"{outcome.events} events were replayed, {differing} rows differ")
