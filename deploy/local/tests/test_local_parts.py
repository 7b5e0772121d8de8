"""The parts that other packages' tests rely on."""

import asyncio

import aiokafka
import psycopg
import pytest
from aiokafka.errors import GroupAuthorizationFailedError, TopicAuthorizationFailedError
from flip_local.testing import Database, Kafka
from psycopg import sql

pytestmark = pytest.mark.parts


def test_the_app_role_has_no_right_that_its_owner_has_not_granted(postgres: Database):
    with psycopg.connect(postgres.owner) as owner:
        owner.execute("CREATE TABLE secret (id int)")
    with psycopg.connect(postgres.app) as app, pytest.raises(psycopg.errors.InsufficientPrivilege):
        app.execute("SELECT * FROM secret")
    with psycopg.connect(postgres.app) as app, pytest.raises(psycopg.errors.InsufficientPrivilege):
        app.execute("CREATE TABLE mine (id int)")
    with psycopg.connect(postgres.owner) as owner:
        owner.execute(sql.SQL("GRANT SELECT ON secret TO {}").format(sql.Identifier(postgres.name)))
    with psycopg.connect(postgres.app) as app:
        assert app.execute("SELECT * FROM secret").fetchall() == []


def producer(kafka: Kafka, principal: str) -> aiokafka.AIOKafkaProducer:
    client = kafka.as_principal(principal)
    return aiokafka.AIOKafkaProducer(
        bootstrap_servers=client.bootstrap,
        security_protocol="SSL",
        ssl_context=client.ssl_context(),
        acks="all",
        enable_idempotence=True,
    )


async def read_one(kafka: Kafka, principal: str, topic: str, group: str) -> bytes | None:
    client = kafka.as_principal(principal)
    consumer = aiokafka.AIOKafkaConsumer(
        topic,
        bootstrap_servers=client.bootstrap,
        security_protocol="SSL",
        ssl_context=client.ssl_context(),
        group_id=group,
        auto_offset_reset="earliest",
    )
    async with consumer:
        return (await asyncio.wait_for(consumer.getone(), 30)).value


async def test_a_trust_writes_its_own_reports_and_no_other_trusts(kafka: Kafka):
    topics = kafka.fresh_topics(["flip.trust.KCH.reports", "flip.trust.UCLH.reports"])
    async with producer(kafka, "trust.KCH") as kch:
        await kch.send_and_wait(topics["flip.trust.KCH.reports"], b"mine")
        with pytest.raises(TopicAuthorizationFailedError):
            await kch.send_and_wait(topics["flip.trust.UCLH.reports"], b"not mine")
        await kch.send_and_wait(topics["flip.trust.KCH.reports"], b"still works")
    own = topics["flip.trust.KCH.reports"]
    assert await read_one(kafka, "service.audit", own, kafka.group("service.audit")) == b"mine"


async def test_a_trust_reads_its_own_commands_in_its_own_groups_only(kafka: Kafka):
    topics = kafka.fresh_topics(["flip.trust.KCH.commands", "flip.trust.UCLH.commands"])
    with pytest.raises(TopicAuthorizationFailedError):
        await read_one(kafka, "trust.KCH", topics["flip.trust.UCLH.commands"], kafka.group("trust.KCH"))
    with pytest.raises(GroupAuthorizationFailedError):
        await read_one(kafka, "trust.KCH", topics["flip.trust.KCH.commands"], kafka.group("trust.UCLH"))


async def test_a_service_may_not_write_another_services_topic(kafka: Kafka):
    topics = kafka.fresh_topics(["flip.projects.project"])
    async with producer(kafka, "service.files") as files:
        with pytest.raises(TopicAuthorizationFailedError):
            await files.send_and_wait(topics["flip.projects.project"], b"forged")
