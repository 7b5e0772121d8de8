"""What the figures were taken on."""

import os
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psycopg
from flip_local.parts.kafka import KAFKA_VERSION

from bench.ground import Ground

_LIBRARIES = ("aiokafka", "asyncpg", "faststream", "faststream-outbox", "faststream-concurrent-aiokafka", "pydantic")


def machine(ground: Ground) -> list[tuple[str, str]]:
    """Cores, memory, versions, durability and what else the machine does."""
    with ground.postgres.cluster.administration() as db:
        postgres = {name: _setting(db, name) for name in ("server_version", "fsync", "synchronous_commit")}
    return [
        *hardware(),
        (
            "PostgreSQL",
            f"{postgres['server_version']}, fsync {postgres['fsync']}, commits {postgres['synchronous_commit']}",
        ),
        ("Apache Kafka", f"{KAFKA_VERSION}, one KRaft node, TLS"),
        ("libraries", ", ".join(f"{name} {version(name)}" for name in _LIBRARIES)),
    ]


def hardware() -> list[tuple[str, str]]:
    """The moment, cores, memory, what else the machine does, its system."""
    return [
        ("taken", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"),
        ("cores", f"{len(os.sched_getaffinity(0))}, {_cpu()}"),
        ("memory", f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"),
        ("load before the run", f"{os.getloadavg()[0]:.1f}"),
        ("system", f"{platform.system()} {platform.release()}"),
        ("Python", platform.python_version()),
    ]


def _setting(db: psycopg.Connection[Any], name: str) -> str:
    row = db.execute("SELECT current_setting(%s)", (name,)).fetchone()
    assert row is not None
    return row[0]


def _cpu() -> str:
    models = [line.partition(": ")[2] for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name")]
    return models[0] if models else platform.machine()


def _lines(path: Path) -> Iterable[str]:
    return path.read_text().splitlines()
