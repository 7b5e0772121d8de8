# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
"""A service's own Postgres database: a pool that speaks JSON, and migrations in plain SQL, numbered."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, cast
from urllib.parse import urlsplit

import asyncpg
import orjson

from flip_chassis.settings import Settings
from flip_chassis.telemetry import log

Row: TypeAlias = Mapping[str, Any]


Isolation = Literal["read_committed", "repeatable_read", "serializable"]


class Connection(Protocol):
    """A connection to Postgres: what of asyncpg's connection the services use."""

    async def execute(self, query: str, /, *args: object) -> str: ...
    async def executemany(self, command: str, /, args: Iterable[Sequence[object]]) -> None: ...
    async def fetch(self, query: str, /, *args: object) -> list[Row]: ...
    async def fetchrow(self, query: str, /, *args: object) -> Row | None: ...
    async def fetchval(self, query: str, /, *args: object) -> Any: ...
    def transaction(
        self, *, isolation: Isolation | None = None, readonly: bool = False
    ) -> AbstractAsyncContextManager[object]: ...


class Pool(Protocol):
    """Connections to one database."""

    def acquire(self) -> AbstractAsyncContextManager[Connection]: ...


CHASSIS_MIGRATIONS = Path(__file__).parent / "migrations"
UNREACHABLE = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.InsufficientResourcesError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
"""What asyncpg raises while the server is away, comes back or has no room."""
_RETRY_S = 0.5


_APPEND_ONLY = """
SELECT DISTINCT tgrelid::regclass::text AS name FROM pg_trigger WHERE tgfoid = 'refuse_change'::regproc
"""
"""The tables that a trigger keeps as they are."""


def _to_json(value: object) -> str:
    return orjson.dumps(value).decode()


async def _speak_json(connection: Any) -> None:
    for name in ("json", "jsonb"):
        await connection.set_type_codec(name, schema="pg_catalog", encoder=_to_json, decoder=orjson.loads)


@asynccontextmanager
async def connect(dsn: str) -> AsyncGenerator[Connection]:
    """One connection; waits for the server to come up."""
    while True:
        try:
            connection = await asyncpg.connect(dsn)
            break
        except UNREACHABLE:
            log.info("waiting for Postgres")
            await asyncio.sleep(_RETRY_S)
    try:
        await _speak_json(connection)
        yield cast("Connection", connection)
    finally:
        connection.terminate()  # a polite close would wait for a server that may be gone


async def notices(dsn: str, channel: str) -> AsyncGenerator[str | None]:
    """What is notified on a channel, as it comes.

    None stands for what may have been missed: at the beginning, and each time that the server was away.
    """
    while True:
        try:
            async with _listening(dsn, channel) as heard:
                yield None
                while (payload := await heard.get()) is not None:
                    yield payload
        except UNREACHABLE as error:
            log.warning("can't listen", reason=type(error).__name__)
        log.warning("Postgres is away; what it notifies meanwhile is missed")


@asynccontextmanager
async def _listening(dsn: str, channel: str) -> "AsyncGenerator[asyncio.Queue[str | None]]":
    """What is notified while the block lasts, and None once the connection has ended."""
    heard: asyncio.Queue[str | None] = asyncio.Queue()

    def hear(_db: object, _pid: int, _channel: str, payload: str) -> None:
        heard.put_nowait(payload)

    def end(_db: object) -> None:
        heard.put_nowait(None)

    async with connect(dsn) as db:
        listening = cast("Any", db)
        listening.add_termination_listener(end)
        await listening.add_listener(channel, hear)
        yield heard


@asynccontextmanager
async def database(settings: Settings, migrations: Path) -> AsyncGenerator[Pool]:
    """The service's pool, with the chassis's migrations and then the service's own applied."""
    await migrate(settings, [CHASSIS_MIGRATIONS, migrations])
    dsn = settings.postgres.get_secret_value()
    async with asyncpg.create_pool(dsn, min_size=1, max_size=8, init=_speak_json, command_timeout=60) as pool:
        yield cast("Pool", pool)


async def migrate(settings: Settings, folders: Sequence[Path]) -> None:
    """Apply what is not applied yet, in order, as the owner; then grant the service's role what it needs, no more.

    Raises RuntimeError when an applied migration has changed since.
    """
    async with connect(settings.postgres_owner.get_secret_value()) as db, db.transaction():
        await db.execute("SELECT pg_advisory_xact_lock(hashtextextended('flip.migrations', 0))")
        await db.execute(
            "CREATE TABLE IF NOT EXISTS schema_migration (name text PRIMARY KEY, digest text NOT NULL,"
            " at timestamptz NOT NULL DEFAULT now())"
        )
        applied = {row["name"]: row["digest"] for row in await db.fetch("SELECT name, digest FROM schema_migration")}
        for folder in folders:
            for file in sorted(folder.glob("*.sql")):
                await _apply(db, f"{folder.parent.name}/{file.name}", file.read_text(), applied)
        await _grant(db, urlsplit(settings.postgres.get_secret_value()).username or "")


async def _apply(db: Connection, name: str, sql: str, applied: Mapping[str, str]) -> None:
    digest = sha256(sql.encode()).hexdigest()
    if applied.get(name, digest) != digest:
        raise RuntimeError(f"the migration {name} was applied with another text")
    if name not in applied:
        await db.execute(sql)
        await db.execute("INSERT INTO schema_migration (name, digest) VALUES ($1, $2)", name, digest)
        log.info("migrated", migration=name)


async def _grant(db: Connection, role: str) -> None:
    quoted = '"' + role.replace('"', '""') + '"'
    name: str = await db.fetchval("SELECT quote_ident(current_database())")
    await db.execute(
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {quoted};"
        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {quoted};"
        f"GRANT TEMPORARY ON DATABASE {name} TO {quoted};"
        f"REVOKE UPDATE, DELETE ON schema_migration FROM {quoted}"
    )
    for row in await db.fetch(_APPEND_ONLY):
        await db.execute(f"REVOKE UPDATE, DELETE ON {row['name']} FROM {quoted}")
