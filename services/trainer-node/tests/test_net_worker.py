import asyncio
import os
import random
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
import pytest
from flip_chassis.database import connect
from flip_chassis.ids import uuid7
from flip_chassis.testing import Speaker, eventually, said, settings_for, speaking
from flip_contracts.base import ProjectId, RunId
from flip_contracts.imaging import DeleteImages, TrustForgotProject, study_digest
from flip_contracts.trainer_node import (
    EndRun,
    PrepareRun,
    TrustEndedRun,
    TrustPreparedRun,
    TrustRefusedRun,
    WorkerStarted,
)
from flip_local.testing import Database, Kafka, PostgresServer
from flip_trainer_node.main import worker
from flip_trainer_node.runtimes import RUNTIMES
from flip_trainer_node.settings import WorkerSettings
from flip_trainer_node.trainers import processes_of
from pydantic import SecretStr

pytestmark = pytest.mark.parts

PAYLOAD = {"mode": "training", "dataset_id": 7}
QUERY = "d" * 64
SCRIPTED = Path(__file__).parent / "scripted"


@dataclass
class Trust:
    """A worker under test at KCH, over a scripted client."""

    folder: Path
    postgres: Database
    cohort: Database
    kafka: Kafka
    hub: Speaker
    project_id: ProjectId = field(default_factory=lambda: ProjectId(uuid7()))
    net: str = field(default_factory=lambda: f"n{random.randrange(16**8):08x}")

    @asynccontextmanager
    async def running(self, **changes: Any) -> AsyncGenerator[None]:
        python = self.folder / "python"
        python.write_text(f'#!/bin/sh\nPYTHONPATH={SCRIPTED} exec {sys.executable} "$@"\n')
        python.chmod(0o700)
        facts: dict[str, Any] = {"frozen_cohort": SecretStr(self.cohort.app)} | changes
        settings = settings_for(
            WorkerSettings,
            self.postgres,
            self.kafka.as_principal("trust.KCH"),
            self.kafka.group("trust.KCH"),
            trust="KCH",
            net=self.net,
            framework="nvflare",
            trainer_python=python,
            kit=self.folder,
            work=self.folder / "work",
            data=self.folder / "data",
            **facts,
        )
        async with worker(settings):
            yield

    async def freeze_cohort(self, studies: int = 1) -> None:
        async with connect(self.cohort.owner) as db:
            await db.executemany(
                "INSERT INTO frozen.cohort_member VALUES ($1, $2, $3, $4, $5)",
                [(self.project_id, number, f"A{number}", QUERY, [{"sex": "F"}]) for number in range(studies)],
            )

    def write_project(self, cases: int) -> None:
        project = self.folder / "data" / "projects" / str(self.project_id)
        listed: list[dict[str, Any]] = []
        for number in range(cases):
            case: dict[str, Any] = {"case": f"case{number}", "study": study_digest(self.project_id, f"A{number}")}
            for kind in ("image", "label"):
                file = project / f"{kind}s" / f"case{number}.nii.gz"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(f"{kind} {number}".encode())
                case[kind] = {"path": f"{kind}s/{file.name}", "sha256": sha256(file.read_bytes()).hexdigest()}
            case["images"] = [case.pop("image")]
            listed.append(case)
        body = {"project_id": str(self.project_id), "labels": {"lesion": 1}, "channels": ["MRI"], "cases": listed}
        (project / "manifest.json").write_bytes(orjson.dumps(body))

    async def ask_to_prepare(self, run_id: RunId, **changes: Any) -> PrepareRun:
        facts = {"attempt": 1, "net": self.net, "payload": PAYLOAD} | changes
        command = PrepareRun(run_id=run_id, project_id=self.project_id, **facts)
        await self.hub.say(command, trust="KCH")
        return command

    async def ask_to_end(self, run_id: RunId, *, forget: bool) -> None:
        command = EndRun(run_id=run_id, project_id=self.project_id, attempt=1, net=self.net, forget=forget)
        await self.hub.say(command, trust="KCH")

    async def ask_to_delete_images(self) -> None:
        await self.hub.say(DeleteImages(project_id=self.project_id), trust="KCH")

    async def reports(self, type_: type[Any], number: int = 1) -> list[Any]:
        async def enough() -> list[Any] | None:
            async with connect(self.postgres.app) as db:
                found = [each for each in await said(db, type_) if self.is_told_in(each)]
            return found if len(found) >= number else None

        return await eventually(enough)

    def is_told_in(self, report: Any) -> bool:
        """Whether the report is on the project; what the hub asked of other tests' projects is heard as well."""
        return getattr(report, "project_id", self.project_id) == self.project_id

    def dataset(self, run_id: RunId) -> Path:
        return self.folder / "work" / "runs" / str(run_id) / "nnUNet_raw" / "Dataset007_FLIP"


@pytest.fixture
async def trust(
    postgres: Database, postgres_server: PostgresServer, kafka: Kafka, tmp_path: Path
) -> AsyncIterator[Trust]:
    with postgres_server.database("cohort") as cohort:
        async with connect(cohort.owner) as db:
            await db.execute(
                "CREATE SCHEMA frozen; CREATE TABLE frozen.cohort_member"
                "(project_id uuid NOT NULL, person_id bigint NOT NULL, accession_id text,"
                " query_digest text NOT NULL, rows jsonb NOT NULL);"
                f"GRANT USAGE ON SCHEMA frozen TO {cohort.name};"
                f"GRANT SELECT ON frozen.cohort_member TO {cohort.name}"
            )
        async with speaking(kafka.as_principal("service.trainer-node"), "flip/hub/trainer-node/net1") as hub:
            yield Trust(tmp_path, postgres, cohort, kafka, hub)


async def test_a_worker_says_that_it_began_and_prepares_what_it_is_asked_for(trust: Trust) -> None:
    await trust.freeze_cohort()
    trust.write_project(10)
    run_id = RunId(uuid7())
    async with trust.running():
        assert [report.net for report in await trust.reports(WorkerStarted)] == [trust.net]
        await trust.ask_to_prepare(RunId(uuid7()), net="another")
        await trust.ask_to_prepare(run_id)
        await trust.ask_to_prepare(run_id, attempt=2)
        first, again = await trust.reports(TrustPreparedRun, 2)
    assert (first.run_id, first.cases, again.dataset_digest) == (run_id, 10, first.dataset_digest)
    assert len(list((trust.dataset(run_id) / "imagesTr").iterdir())) == 10
    assert len(list((trust.folder / "work" / "runs").iterdir())) == 1


@pytest.mark.requirement("RUN-10")
async def test_an_apps_data_are_those_of_the_frozen_cohort_by_the_query_that_froze_it(trust: Trust) -> None:
    await trust.freeze_cohort(11)
    trust.write_project(12)
    run_id = RunId(uuid7())
    async with trust.running():
        await trust.ask_to_prepare(run_id, payload={"mode": "app", "local_rounds": None})
        [prepared] = await trust.reports(TrustPreparedRun)
    assert prepared.cases == 11
    data = trust.folder / "work" / "runs" / str(run_id) / "app_data"
    assert (data / "cohort.csv").read_text().splitlines()[:2] == ["accession_id,sex", "case0,F"]
    assert orjson.loads((data / "project.json").read_bytes())["query_sha256"] == QUERY
    assert len(list((data / "images").iterdir())) == 11


async def test_a_trust_whose_cohort_is_not_frozen_or_too_small_takes_no_part(trust: Trust) -> None:
    trust.write_project(9)
    async with trust.running():
        await trust.ask_to_prepare(RunId(uuid7()))
        assert [report.reason for report in await trust.reports(TrustRefusedRun)] == ["cohort-not-frozen"]
        await trust.freeze_cohort()
        await trust.ask_to_prepare(RunId(uuid7()))
        assert (await trust.reports(TrustRefusedRun, 2))[1].reason == "too-few-cases"


@pytest.mark.requirement("RUN-3")
@pytest.mark.requirement("RUN-9")
async def test_what_can_not_be_read_or_written_is_refused_and_the_next_run_is_prepared(trust: Trust) -> None:
    await trust.freeze_cohort()
    trust.write_project(10)
    no_folder = RunId(uuid7())
    (trust.folder / "work" / "runs").mkdir(parents=True)
    (trust.folder / "work" / "runs" / str(no_folder)).touch()
    run_id = RunId(uuid7())
    async with trust.running():
        await trust.ask_to_prepare(RunId(uuid7()), payload={"mode": "training"})
        await trust.ask_to_prepare(no_folder)
        await trust.ask_to_prepare(run_id)
        assert [prepared.run_id for prepared in await trust.reports(TrustPreparedRun)] == [run_id]
        refused = await trust.reports(TrustRefusedRun, 2)
    assert [report.reason for report in refused] == ["unexpected-error"] * 2


@pytest.mark.requirement("RUN-3")
async def test_what_was_asked_while_the_worker_was_away_is_done_when_it_is_back(trust: Trust) -> None:
    await trust.freeze_cohort()
    trust.write_project(10)
    async with trust.running():
        await trust.reports(WorkerStarted)
    run_id = RunId(uuid7())
    await trust.ask_to_prepare(run_id)
    async with trust.running():
        assert (await trust.reports(TrustPreparedRun))[0].run_id == run_id
        assert len(await trust.reports(WorkerStarted, 2)) == 2


NOBODY_LISTENS = SecretStr("postgresql://nobody@127.0.0.1:1/cohort")


@pytest.mark.requirement("RUN-9")
async def test_a_cohort_database_that_stays_away_is_a_reason_not_to_take_part(trust: Trust) -> None:
    async with trust.running(frozen_cohort=NOBODY_LISTENS, cohort_patience=timedelta(seconds=1)):
        await trust.ask_to_prepare(RunId(uuid7()))
        assert [report.reason for report in await trust.reports(TrustRefusedRun)] == ["cohort-unreachable"]


@pytest.mark.requirement("RUN-6")
async def test_a_run_is_ended_though_its_cohort_database_is_away(trust: Trust) -> None:
    run_id = RunId(uuid7())
    async with trust.running(frozen_cohort=NOBODY_LISTENS):
        await trust.ask_to_prepare(run_id)
        await trust.ask_to_end(run_id, forget=False)
        assert [report.run_id for report in await trust.reports(TrustEndedRun)] == [run_id]


def nest(folder: Path, depth: int) -> None:
    """Folders in each other, as a hostile trainer may leave them."""
    folder.mkdir(parents=True)
    at = os.open(folder, os.O_DIRECTORY)
    for _ in range(depth):
        os.mkdir("x", dir_fd=at)
        below = os.open("x", os.O_DIRECTORY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)


async def forgotten_trainer(run_id: RunId) -> asyncio.subprocess.Process:
    """A trainer of the run that its framework does not end."""
    script = RUNTIMES["nvflare"].trainer_script
    trainer = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", script, "--run", str(run_id)),
        env={**os.environ, "PYTHONPATH": str(SCRIPTED)},
    )
    assert processes_of(script, run_id) == [trainer.pid]
    return trainer


@pytest.mark.requirement("RUN-3")
@pytest.mark.requirement("RUN-6")
async def test_a_trust_that_is_back_ends_the_old_run_before_it_prepares_the_next(trust: Trust) -> None:
    await trust.freeze_cohort()
    trust.write_project(10)
    old, next_ = RunId(uuid7()), RunId(uuid7())
    async with trust.running():
        await trust.ask_to_prepare(old)
        await trust.reports(TrustPreparedRun)
    trainer = await forgotten_trainer(old)
    await trust.ask_to_prepare(next_)
    async with trust.running():
        assert {report.run_id for report in await trust.reports(TrustPreparedRun, 2)} == {old, next_}
        assert processes_of(RUNTIMES["nvflare"].trainer_script, old) == []
        assert await trainer.wait() < 0
        await trust.ask_to_end(old, forget=False)
        assert [report.run_id for report in await trust.reports(TrustEndedRun)] == [old]


@pytest.mark.requirement("RUN-6")
async def test_an_ended_run_has_no_process_left_and_a_forgotten_one_no_file(trust: Trust) -> None:
    await trust.freeze_cohort()
    trust.write_project(10)
    run_id = RunId(uuid7())
    async with trust.running():
        await trust.ask_to_prepare(run_id)
        await trust.reports(TrustPreparedRun)
        forgotten = await forgotten_trainer(run_id)
        own = trust.folder / "work" / "runs" / ".site" / str(trust.project_id) / "runs" / str(run_id)
        nest(own, 1500)
        await trust.ask_to_end(run_id, forget=False)
        await trust.reports(TrustEndedRun)
        assert await forgotten.wait() < 0
        assert trust.dataset(run_id).exists()
        await trust.ask_to_end(run_id, forget=True)
        await trust.reports(TrustEndedRun, 2)
        assert not trust.dataset(run_id).parents[1].exists()
        assert not own.exists()


@pytest.mark.requirement("IMG-9")
async def test_a_project_whose_images_are_deleted_leaves_nothing_with_the_net_and_is_never_prepared_again(
    trust: Trust,
) -> None:
    await trust.freeze_cohort()
    trust.write_project(10)
    run_id = RunId(uuid7())
    runs = trust.folder / "work" / "runs"
    own, of_another = runs / ".site" / str(trust.project_id), runs / ".site" / str(uuid7())
    async with trust.running():
        await trust.ask_to_prepare(run_id)
        await trust.reports(TrustPreparedRun)
        for folder in (own / "preprocessed" / "abc", own / "runs" / str(run_id) / "states", of_another):
            folder.mkdir(parents=True)
            (folder / "case0.b2nd").touch()
        trainer = await forgotten_trainer(run_id)
        await trust.ask_to_delete_images()
        [report] = await trust.reports(TrustForgotProject)
        assert (report.project_id, report.net) == (trust.project_id, trust.net)
        assert await trainer.wait() < 0
        assert sorted(runs.rglob("*")) == [runs / ".site", of_another, of_another / "case0.b2nd"]
        await trust.ask_to_prepare(RunId(uuid7()))
        assert [refused.reason for refused in await trust.reports(TrustRefusedRun)] == ["project-deleted"]
        assert sorted(runs.iterdir()) == [runs / ".site"]
