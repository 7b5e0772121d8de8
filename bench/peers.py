# pyright: reportMissingImports=false, reportUnknownMemberType=false
"""The peers, each at the settings at which it was fastest here. They are installed in an environment of their own."""

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import asyncpg
import orjson
from faststream import AckPolicy
from faststream.kafka import KafkaBroker, KafkaMessage, KafkaResponse
from faststream.security import BaseSecurity
from faststream_concurrent_aiokafka import (
    ConsumerRebalanceListener,
    KafkaConcurrentProcessingMiddleware,
    initialize_concurrent_processing,
    stop_concurrent_processing,
)
from faststream_outbox import OutboxBroker, make_outbox_table
from flip_contracts.projects import ProjectEdited
from flip_local.testing import Database, KafkaClient
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from bench.workload import PROJECT_IDS, PROJECTS, SHOW_EDIT, edit

OUTBOX_WORKERS = 16
OUTBOX_FETCH = 200
CONCURRENT = 16
COMMIT_EVERY = 500
_WRITTEN_AT_ONCE = 500

logging.getLogger("faststream_concurrent_aiokafka").setLevel(logging.CRITICAL)


def _broker(client: KafkaClient, **more: Any) -> KafkaBroker:
    security = BaseSecurity(ssl_context=client.ssl_context(), use_ssl=True)
    return KafkaBroker(client.bootstrap, security=security, allow_auto_create_topics=False, logger=None, **more)


# --- the relay ------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def outbox(
    client: KafkaClient, database: Database, topic: str, count: int
) -> AsyncGenerator[tuple[OutboxBroker, KafkaBroker]]:
    """faststream-outbox with `count` edits in its table; relays them to `topic` once both brokers are started."""
    engine = create_async_engine(
        database.owner.replace("postgresql:", "postgresql+asyncpg:"), pool_size=OUTBOX_WORKERS + 4
    )
    tables = MetaData()
    table = make_outbox_table(tables, table_name="outbox")
    async with engine.begin() as connection:
        await connection.run_sync(tables.create_all)
    source = OutboxBroker(engine, outbox_table=table, logger=None)
    kafka = _broker(client, enable_idempotence=True, acks="all")

    @kafka.publisher(topic)
    @source.subscriber(
        "edits",
        max_workers=OUTBOX_WORKERS,
        fetch_batch_size=OUTBOX_FETCH,
        terminal_flush_batch_size=OUTBOX_FETCH,
    )
    async def relay(body: dict[str, Any]) -> KafkaResponse:
        return KafkaResponse(body, key=body["project_id"].encode())

    bodies = [orjson.loads(edit(number, PROJECT_IDS[number % PROJECTS]).encode()) for number in range(count)]
    async with AsyncSession(engine) as session, session.begin():
        for first in range(0, count, _WRITTEN_AT_ONCE):
            await source.publish_batch(*bodies[first : first + _WRITTEN_AT_ONCE], queue="edits", session=session)
    try:
        yield source, kafka
    finally:
        await engine.dispose()


@asynccontextmanager
async def outbox_relaying(source: OutboxBroker, kafka: KafkaBroker) -> AsyncGenerator[None]:
    """Relay while the block lasts."""
    await kafka.start()
    await source.start()
    try:
        yield
    finally:
        await source.stop()
        await kafka.stop()


# --- the inbox ------------------------------------------------------------------------------------------------------


async def _show_once(pool: asyncpg.Pool, event: ProjectEdited, event_id: UUID) -> None:
    async with pool.acquire() as db, db.transaction():
        fresh = await db.fetchval(
            "INSERT INTO inbox (event_id) VALUES ($1) ON CONFLICT DO NOTHING RETURNING true", event_id
        )
        if fresh:
            await db.execute(SHOW_EDIT, event.project_id, event.name)


@asynccontextmanager
async def one_by_one(
    client: KafkaClient, group: str, pool: asyncpg.Pool, topic: str, workers: int
) -> AsyncGenerator[None]:
    """FastStream as its documentation shows it: a transaction and a commit each record, order kept a partition."""
    broker = _broker(client)

    @broker.subscriber(
        topic,
        group_id=group,
        auto_offset_reset="earliest",
        ack_policy=AckPolicy.NACK_ON_ERROR,
        max_workers=workers,
    )
    async def show(event: ProjectEdited, message: KafkaMessage) -> None:
        await _show_once(pool, event, UUID(message.headers["ce_id"]))

    await broker.start()
    try:
        yield
    finally:
        await broker.stop()


@asynccontextmanager
async def concurrent(client: KafkaClient, group: str, pool: asyncpg.Pool, topic: str) -> AsyncGenerator[None]:
    """faststream-concurrent-aiokafka: a transaction a record, many at once; the order of a key is given up."""
    broker = _broker(client, middlewares=[KafkaConcurrentProcessingMiddleware])

    @broker.subscriber(
        topic,
        group_id=group,
        auto_offset_reset="earliest",
        ack_policy=AckPolicy.MANUAL,
        listener=ConsumerRebalanceListener.from_context(broker.context),
    )
    async def show(event: ProjectEdited, message: KafkaMessage) -> None:
        await _show_once(pool, event, UUID(message.headers["ce_id"]))

    await initialize_concurrent_processing(
        broker.context, concurrency_limit=CONCURRENT, commit_batch_size=COMMIT_EVERY, commit_batch_timeout_sec=1.0
    )
    await broker.start()
    try:
        yield
    finally:
        await stop_concurrent_processing(broker.context)
        await broker.stop()
