"""The way from Kafka: polls come again until they are dealt with; what is told of a consumer is true."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from aiokafka import TopicPartition
from flip_chassis.bus import Bus, Hearing, Record, bus, commit
from flip_chassis.ids import uuid7
from flip_chassis.settings import Settings
from flip_chassis.testing import eventually, settings_for, speaking
from flip_contracts.base import ProjectId
from flip_contracts.projects import ProjectUnstaged
from flip_contracts.topics import PROJECT
from flip_local.testing import Database, Kafka

pytestmark = pytest.mark.parts


class Listening(Settings):
    service = "cohort"


@pytest.fixture
def way(postgres: Database, kafka: Kafka) -> Bus:
    return bus(settings_for(Listening, postgres, kafka.as_principal("service.cohort"), kafka.group("service.cohort")))


async def done(records: Sequence[Record]) -> bool:
    return True


@asynccontextmanager
async def members(way: Bus, count: int) -> AsyncGenerator[list[Hearing]]:
    """So many members of one group, all of which have their share."""
    async with AsyncExitStack() as stack:
        them = [await stack.enter_async_context(way.hearing([PROJECT.name], done)) for _ in range(count)]

        async def shared_out() -> bool:
            return all(it.joined for it in them) and sum(len(it.partitions()) for it in them) == PROJECT.partitions

        await eventually(shared_out)
        yield them


async def test_a_poll_that_fails_in_an_unforeseen_way_comes_again(way: Bus, kafka: Kafka):
    project = ProjectId(uuid7())
    failed: list[bytes] = []
    taken: list[bytes] = []

    async def take(records: Sequence[Record]) -> bool:
        mine = [record.value or b"" for record in records if record.key == str(project).encode()]
        if mine and not failed:
            failed.extend(mine)
            raise RuntimeError
        taken.extend(mine)
        return True

    async def all_taken() -> bool:
        return len(taken) == 3

    async with (
        way.hearing([PROJECT.name], take),
        speaking(kafka.as_principal("service.projects"), "flip/hub/projects") as projects,
    ):
        words = [ProjectUnstaged(project_id=project, reason=str(number)) for number in range(3)]
        for word in words:
            await projects.say(word)
        await eventually(all_taken)
    assert taken == [word.encode() for word in words]
    assert failed


async def test_a_member_that_the_group_gives_nothing_to_is_neither_stuck_nor_behind(way: Bus):
    async with members(way, PROJECT.partitions + 1) as them:
        (idle,) = [it for it in them if not it.partitions()]
        assert (idle.poll_age_s(), await idle.lag()) == (0.0, 0)


async def test_the_lag_is_told_while_partitions_come_and_go(way: Bus):
    async with way.hearing([PROJECT.name], done) as one:
        comings = asyncio.create_task(_come_and_go(way))
        while not comings.done():
            assert await one.lag() >= 0
            await asyncio.sleep(0.001)  # the others' turn
        await comings


async def _come_and_go(way: Bus) -> None:
    for _ in range(2):
        async with way.hearing([PROJECT.name], done) as other:

            async def has_joined(member: Hearing = other) -> bool:
                return member.joined

            await eventually(has_joined)


async def test_a_commit_for_what_the_group_has_given_to_another_member_is_passed_over(way: Bus):
    async with members(way, 1) as (one,):
        consumer = one.consumer
        assert consumer is not None
        await commit(consumer, {TopicPartition(PROJECT.name, PROJECT.partitions): 1})


async def test_reading_brings_what_stood_there_when_it_began_in_the_order_of_each_partition(way: Bus, kafka: Kafka):
    project = ProjectId(uuid7())
    said = [ProjectUnstaged(project_id=project, reason=f"reading-{number}") for number in range(5)]
    async with speaking(kafka.as_principal("service.projects"), "flip/hub/projects") as projects:
        for word in said[:3]:
            await projects.say(word)
        async with way.reading([PROJECT.name], {}) as reading:
            for word in said[3:]:
                await projects.say(word)
            found = [record async for records in reading for record in records]
            assert all(reading.position[partition] >= end for partition, end in reading.end.items())
        async with way.reading([PROJECT.name], reading.position) as rest:
            found += [record async for records in rest for record in records]
    mine = [record.value for record in found if record.key == str(project).encode()]
    assert mine == [word.encode() for word in said]
