"""The rounds of runs: each can be downloaded by who may see the project, until those that need not stay are deleted."""

import io
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256
from typing import Any

import httpx
import pytest
from flip_chassis.database import connect
from flip_chassis.ids import uuid7
from flip_chassis.testing import eventually, refused, said, speaking
from flip_contracts.base import Message, ModelId, ProjectId, RunId, UserId
from flip_contracts.files import AttemptRounds, RoundDownloaded, RoundsDeleted
from flip_contracts.scheduler import (
    BestRound,
    Checkpoint,
    Continued,
    RunAssigned,
    RunFailed,
    RunFinished,
    RunQueued,
    RunStopped,
)
from flip_contracts.trainer_node import RoundComplete
from flip_files import domain
from flip_files.domain import Round, Rounds
from flip_local.testing import S3, Clamd, Database, Kafka

from .conftest import Files, files_of

RUN = RunId(uuid7())
PROJECT = ProjectId(uuid7())
ADA = UserId(uuid7())
DIGEST = "ab" * 32


# --- which rounds count, and which stay, pure -------------------------------------------------------------------------


def stored(*numbers: int, attempt: int = 1, best: str | None = None) -> list[Round]:
    return [Round(PROJECT, attempt, number, f"{number}.{attempt}", DIGEST, best) for number in numbers]


def numbered(rounds: Rounds) -> list[tuple[int, int]]:
    return [(each.number, each.attempt) for each in rounds.counting.values()]


def test_what_a_fenced_off_attempt_did_behind_where_the_next_one_went_on_does_not_count():
    rounds = Rounds([*stored(0, 1, 2, 3), *stored(2, attempt=2)], {1: 0, 2: 2})
    assert numbered(rounds) == [(0, 1), (1, 1), (2, 2)]
    assert rounds.last == 2, "round 3 is of no run that anybody goes on with"
    assert numbered(Rounds(stored(0, 1, 2), {1: 0, 2: 2})) == [(0, 1), (1, 1)], "round 2 is being done again"


def test_the_last_and_the_best_round_stay_and_all_else_is_given_up_once():
    rounds = Rounds([*stored(0, 1), *stored(2, 3, best="1.1"), *stored(3, attempt=2, best="1.1")], {1: 0, 2: 3})
    gone = domain.thin(rounds, RUN)
    deleted = [AttemptRounds(attempt=1, rounds=[0, 2, 3])]
    assert gone == RoundsDeleted(run_id=RUN, project_id=PROJECT, deleted=deleted, kept=[1, 3])
    after = [Round(PROJECT, 1, number, f"{number}.1", DIGEST, deleted=True) for number in (0, 2, 3)]
    left = [*after, *stored(1), *stored(3, attempt=2, best="1.1")]
    assert domain.thin(Rounds(left, {1: 0, 2: 3}), RUN) is None


@pytest.mark.requirement("RUN-9")
def test_a_round_that_another_run_went_on_from_stays_beside_the_last_and_the_best():
    needed = Round(PROJECT, 1, 1, "1.1", DIGEST, needed=True)
    put_aside = Round(PROJECT, 1, 3, "3.1", DIGEST, needed=True)
    rounds = Rounds([*stored(0), needed, *stored(2), put_aside, *stored(3, attempt=2)], {1: 0, 2: 3})
    gone = domain.thin(rounds, RUN)
    assert gone is not None
    assert gone.deleted == [AttemptRounds(attempt=1, rounds=[0, 2, 3])], "what was put aside nobody goes on from"
    assert gone.kept == [1, 3]


def test_where_rounds_are_not_scored_only_the_last_stays():
    rounds = Rounds(stored(0, 1, 2))
    assert (rounds.staying, rounds.best) == ({2}, None)
    assert domain.thin(Rounds(), RUN) is None


def test_a_deleted_round_is_refused_with_those_that_stay_and_one_that_never_was_is_not_found():
    rounds = Rounds([Round(PROJECT, 1, 0, "0.1", DIGEST, deleted=True), *stored(1)])
    with refused("round-deleted", kept=[1]):
        domain.download_round(rounds, RUN, 0, ADA)
    with refused("round-not-found"):
        domain.download_round(rounds, RUN, 2, ADA)


# --- on real parts --------------------------------------------------------------------------------------------------


@dataclass
class Run:
    """A run of the project, as its net and the scheduler tell of it."""

    files: Files
    run_id: RunId = field(default_factory=lambda: RunId(uuid7()))

    @property
    def path(self) -> str:
        return f"/api/files/results/{self.run_id}/rounds"

    def content(self, number: int, attempt: int) -> bytes:
        return f"{self.run_id} {number} {attempt} ".encode() * 100

    def object(self, number: int, attempt: int) -> str:
        return f"runs/{self.run_id}/rounds/{number}.{attempt}.npz"

    async def completes(self, *numbers: int, attempt: int = 1, best: int | None = None) -> None:
        """Each round's weights are in the store; and that is said."""
        for number in numbers:
            content = self.content(number, attempt)
            name = self.object(number, attempt)
            self.files.store.put_object(self.files.bucket, name, io.BytesIO(content), len(content))
            scored = BestRound(round=best, object=self.object(best, 1), digest=DIGEST, score=0.8) if best else None
            async with speaking(self.files.kafka.as_principal("service.trainer-node"), "flip/hub/trainer-node") as net:
                await net.say(
                    RoundComplete(
                        run_id=self.run_id,
                        project_id=self.files.project_id,
                        attempt=attempt,
                        fencing=attempt,
                        rounds=9,
                        checkpoint=Checkpoint(round=number, object=name, digest=DIGEST, score=0.5, best=scored),
                        trusts=frozenset({"KCH"}),
                        size_bytes=len(content),
                        file_digest=sha256(content).hexdigest(),
                    )
                )

    async def scheduler_says(self, *messages: Message) -> None:
        async with speaking(self.files.kafka.as_principal("service.scheduler"), "flip/hub/scheduler") as scheduler:
            for message in messages:
                await scheduler.say(message)

    def assigned(self, attempt: int, after: int | None = None) -> RunAssigned:
        checkpoint = None if after is None else Checkpoint(round=after, object=self.object(after, 1), digest=DIGEST)
        return RunAssigned(
            run_id=self.run_id,
            project_id=self.files.project_id,
            model_id=ModelId(uuid7()),
            net="net1",
            attempt=attempt,
            fencing=attempt,
            framework="nvflare",
            job="nnunet",
            trusts=frozenset({"KCH"}),
            payload={},
            checkpoint=checkpoint,
        )

    def stopped(self) -> RunStopped:
        return RunStopped(run_id=self.run_id, project_id=self.files.project_id)

    async def get(self, path: str = "", of: UserId | None = None) -> httpx.Response:
        return await self.files.http.get(self.path + path, headers=self.files.token(of or self.files.owner))

    async def shown(self, **expected: list[Any]) -> list[dict[str, Any]]:
        """The rounds as they are listed, once these columns of theirs are as expected."""

        async def look() -> list[dict[str, Any]] | None:
            answer = await self.get()
            if answer.status_code != httpx.codes.OK:
                return None
            listed = answer.json()
            columns = {name: [each[name] for each in listed] for name in expected}
            return listed if columns == expected else None

        return await eventually(look)

    async def said(self, type_: type[Any]) -> list[Any]:
        async with connect(self.files.database.app) as db:
            return [event for event in await said(db, type_) if event.run_id == self.run_id]

    def in_store(self) -> list[str]:
        prefix = f"runs/{self.run_id}/rounds/"
        found = self.files.store.list_objects(self.files.bucket, prefix=prefix)
        return sorted((each.object_name or "").removeprefix(prefix) for each in found)


@pytest.mark.parts
@pytest.mark.requirement("RUN-9")
async def test_each_round_of_a_run_under_way_can_be_downloaded_as_it_was_stored_and_that_is_recorded(files: Files):
    run = Run(files)
    await run.completes(0, 1, best=1)
    rounds = await run.shown(round=[0, 1])
    assert [(each["best"], each["kept_until"], each["score"]) for each in rounds] == [
        (False, None, 0.5),
        (True, None, 0.5),
    ]
    answer = await run.get("/0/download", of=files.viewer)
    assert answer.content == run.content(0, 1)
    assert int(answer.headers["Content-Length"]) == rounds[0]["size_bytes"] == len(answer.content)
    assert answer.headers["Digest"] == f"sha-256={sha256(answer.content).hexdigest()}"
    assert f"round-00000_{run.run_id}.npz" in answer.headers["Content-Disposition"]
    [told] = await run.said(RoundDownloaded)
    assert (told.user_id, told.round, told.digest) == (files.viewer, 0, DIGEST)
    missing = await run.get("/7/download")
    assert (missing.status_code, missing.json()["code"]) == (404, "round-not-found")


@pytest.mark.parts
async def test_a_stranger_is_not_told_that_there_are_rounds(files: Files):
    run = Run(files)
    before = await run.get()
    assert (before.status_code, before.json()["code"]) == (404, "rounds-not-found")
    await run.completes(0)
    await run.shown(round=[0])
    for path in ("", "/0/download"):
        answer = await run.get(path, of=files.stranger)
        assert (answer.status_code, answer.json()["code"]) == (404, "project-not-found")
    assert await run.said(RoundDownloaded) == []


@pytest.mark.parts
@pytest.mark.requirement("RUN-9")
async def test_a_run_that_has_just_ended_keeps_all_rounds_and_says_until_when(files: Files):
    run = Run(files)
    await run.completes(0, 1, 2, best=1)
    await run.scheduler_says(
        RunFailed(
            run_id=run.run_id,
            project_id=files.project_id,
            model_id=ModelId(uuid7()),
            reason="sites-silent",
        )
    )

    async def until() -> list[str | None] | None:
        answer = await run.get()
        kept = [each["kept_until"] for each in answer.json()] if answer.is_success else []
        return kept if len(kept) == 3 and kept[0] else None

    assert [each is None for each in await eventually(until)] == [False, True, True], "the best and the last stay"
    assert (await run.get("/0/download")).status_code == httpx.codes.OK


@pytest.mark.parts
@pytest.mark.requirement("RUN-9")
async def test_rounds_of_a_run_that_ended_long_ago_are_thinned_once_and_again_where_one_comes_late(
    postgres: Database, kafka: Kafka, s3: S3, clamd: Clamd
):
    async with files_of(postgres, kafka, s3, clamd, rounds_kept_for=timedelta()) as files:
        run, other = Run(files), Run(files)
        await other.completes(0, 1)
        await run.completes(0, 1, 2, 3, best=1)
        await run.completes(2, attempt=2, best=1)
        await run.scheduler_says(run.assigned(1), run.assigned(2, after=1))
        await run.shown(round=[0, 1, 2], attempt=[1, 1, 2])
        await run.scheduler_says(run.stopped())
        await run.shown(round=[0, 1, 2], deleted=[True, False, False])
        gone = await run.get("/0/download")
        assert (gone.status_code, gone.json()["code"], gone.json()["kept"]) == (409, "round-deleted", [1, 2])
        assert (await run.get("/1/download")).content == run.content(1, 1)

        async def thinned() -> bool:
            return run.in_store() == ["1.1.npz", "2.2.npz"]

        await eventually(thinned)
        assert [event.deleted for event in await run.said(RoundsDeleted)] == [
            [AttemptRounds(attempt=1, rounds=[0, 2, 3])]
        ]

        await run.completes(4, attempt=1)

        async def thinned_again() -> bool:
            return len(await run.said(RoundsDeleted)) == 2 and run.in_store() == ["1.1.npz", "2.2.npz"]

        await eventually(thinned_again)
        assert len(other.in_store()) == 2, "a run under way keeps all of its rounds"


@pytest.mark.parts
@pytest.mark.requirement("RUN-9")
async def test_weights_that_another_run_began_with_or_had_as_its_best_are_not_thinned(
    postgres: Database, kafka: Kafka, s3: S3, clamd: Clamd
):
    async with files_of(postgres, kafka, s3, clamd, rounds_kept_for=timedelta()) as files:
        run, other = Run(files), Run(files)
        await run.completes(0, 1, 2, 3)
        best = BestRound(round=0, object=run.object(0, 1), digest=DIGEST, score=0.8)
        begins = Checkpoint(round=2, object=run.object(2, 1), digest=DIGEST, best=best)
        await run.scheduler_says(
            RunQueued(
                run_id=other.run_id,
                project_id=files.project_id,
                model_id=ModelId(uuid7()),
                framework="nvflare",
                job="nnunet",
                trusts=frozenset({"KCH"}),
                payload={},
                continues=Continued(run_id=run.run_id, checkpoint=begins),
            ),
            run.stopped(),
        )
        await run.shown(round=[0, 1, 2, 3], deleted=[False, True, False, False])


@pytest.mark.parts
async def test_a_thinning_that_was_cut_short_is_done_again_and_said_once(
    postgres: Database, kafka: Kafka, s3: S3, clamd: Clamd
):
    async with files_of(postgres, kafka, s3, clamd) as files:
        run = Run(files)
        await run.completes(0, 1)
        finished = RunFinished(
            run_id=run.run_id, project_id=files.project_id, model_id=ModelId(uuid7()), results=DIGEST
        )
        await run.scheduler_says(finished)
        await run.shown(round=[0, 1])
    wrong = {"s3_secret_key": "not-the-key", "rounds_kept_for": timedelta()}
    async with files_of(postgres, kafka, s3, clamd, **wrong) as without_store:
        run.files = without_store

        async def said_so() -> list[Any]:
            return await run.said(RoundsDeleted)

        assert len(await eventually(said_so)) == 1
        assert run.in_store() == ["0.1.npz", "1.1.npz"]
    async with connect(postgres.app) as db:  # whoever was at it is gone, and its lease over
        await db.execute("UPDATE thinning SET not_before = now() WHERE run_id = $1", run.run_id)
    async with files_of(postgres, kafka, s3, clamd, rounds_kept_for=timedelta()) as again:
        run.files = again

        async def gone() -> bool:
            return run.in_store() == ["1.1.npz"]

        await eventually(gone)
        assert len(await run.said(RoundsDeleted)) == 1
