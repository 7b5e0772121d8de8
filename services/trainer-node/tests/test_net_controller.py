import hashlib
import io
import json
import random
import shutil
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flip_chassis.database import connect
from flip_chassis.ids import uuid7
from flip_chassis.testing import Speaker, eventually, said, settings_for, speaking
from flip_contracts.base import ModelId, ProjectId, RunId
from flip_contracts.scheduler import (
    Checkpoint,
    EarlierResults,
    Resources,
    RunAssigned,
    RunFinished,
    RunStopped,
    RunStopping,
)
from flip_contracts.trainer_node import (
    AttemptEnded,
    ContributionExcluded,
    EndRun,
    EndUnconfirmed,
    MetricReported,
    NetFree,
    NetHeartbeat,
    PlanAgreed,
    PrepareRun,
    ResultsCollected,
    RoundComplete,
    RunPrepared,
    StageReached,
    TrainingStarted,
    TrustEndedRun,
    TrustLeftOut,
    TrustPreparedRun,
    TrustRefusedRun,
    WorkerStarted,
)
from flip_local.testing import S3, Database, Kafka
from flip_trainer_node.main import controller
from flip_trainer_node.settings import ControllerSettings
from minio import Minio
from pydantic import SecretStr, ValidationError

pytestmark = pytest.mark.parts

TRUSTS = ("KCH", "UCLH")
PAYLOAD = {
    "mode": "training",
    "num_rounds": 2,
    "dataset_id": 7,
    "model_configuration": "2d",
    "device": "cpu",
    "fold_id": "all",
    "trainer_name": "nnUNetTrainer",
    "epochs_per_round": 1,
    "starting_fed_round": 0,
}
PREDICTION = {
    "mode": "inference",
    "checkpoint_path": "run:earlier",
    "fold_id": "all",
    "device": "cpu",
    "dataset_subdirs": {"7": "imagesTr"},
    "checkpoint_name": "checkpoint_final.pth",
}
DIGEST = "d" * 64


@dataclass
class Net:
    """A controller under test over a scripted framework, with the scheduler and two Trusts that speak to it."""

    folder: Path
    postgres: Database
    kafka: Kafka
    s3: S3
    scheduler: Speaker
    trusts: dict[str, Speaker]
    name: str = field(default_factory=lambda: f"n{random.randrange(16**8):08x}")
    fencing: int = 0

    @asynccontextmanager
    async def running(self, **changes: Any) -> AsyncGenerator[None]:
        principal, group = self.kafka.as_principal("service.trainer-node"), self.kafka.group("service.trainer-node")
        python = self.folder / "python"
        python.write_text(f'#!/bin/sh\nPYTHONPATH={Path(__file__).parent / "scripted"} exec {sys.executable} "$@"\n')
        python.chmod(0o700)
        facts: dict[str, Any] = {"resources": {"KCH": Resources(gpus=1, gpu_memory_mib=8192)}} | changes
        settings = settings_for(
            ControllerSettings,
            self.postgres,
            principal,
            group,
            trusts=frozenset(TRUSTS),
            net=self.name,
            framework="nvflare",
            trainer_python=python,
            kit=self.folder,
            admin_kit=self.folder,
            work=self.folder / "work",
            s3_endpoint=self.s3.endpoint,
            s3_access_key=SecretStr(self.s3.access_key),
            s3_secret_key=SecretStr(self.s3.secret_key),
            s3_bucket=self.s3.bucket,
            compute_profile={"name": "small"},
            **facts,
        )
        async with controller(settings):
            yield

    # --- what the framework is scripted to do ---------------------------------------------------------------------

    @property
    def script(self) -> Path:
        return self.folder / "work" / "net.json"

    def scripted(self) -> dict[str, Any]:
        return json.loads(self.script.read_text())

    def connect(self, *sites: str) -> None:
        self.script.parent.mkdir(exist_ok=True)
        jobs = self.scripted()["jobs"] if self.script.exists() else {}
        draft = self.script.with_name(".net.json.test")
        draft.write_text(json.dumps({"sites": sites, "jobs": jobs}))
        draft.replace(self.script)

    def end_job(self, job: str, state: str) -> None:
        known = self.scripted()
        known["jobs"][job]["state"] = state
        draft = self.script.with_name(".net.json.test")
        draft.write_text(json.dumps(known))
        draft.replace(self.script)

    def refuse(self, **codes: str) -> None:
        """Let the driver refuse operations; without any it refuses nothing more."""
        draft = self.script.with_name(".refuses.json")
        draft.write_text(json.dumps(codes))
        draft.replace(self.script.with_name("refuses.json"))

    def run_folder(self, run: RunAssigned) -> Path:
        return self.folder / "work" / "runs" / str(run.run_id)

    def write(self, run: RunAssigned, *lines: dict[str, Any]) -> None:
        file = self.run_folder(run) / "events.jsonl"
        written = len(file.read_text().splitlines()) if file.exists() else 0
        with file.open("a") as stream:
            for number, line in enumerate(lines, start=written + 1):
                stream.write(json.dumps({"seq": number, "attempt": run.attempt, **line}) + "\n")

    def complete_round(self, run: RunAssigned, number: int) -> bytes:
        weights = random.Random(number).randbytes(1 << 16)
        (self.run_folder(run) / "rounds" / f"round_{number:05d}.npz").write_bytes(weights)
        metrics = {"train_loss": 0.5, "dice": None, "dice_per_class": {"organ": None, "lesion": 0.25}}
        sites = {trust: {"metrics": metrics} for trust in TRUSTS}
        said = {"round": number, "digest": sha256(weights)}
        first = sha256(random.Random(0).randbytes(1 << 16))
        standing = {"score": 0.5, "best": {"round": 0, "digest": first, "score": 0.75}}
        self.write(run, {"kind": "round-complete", **said, "rounds": 2, "standing": standing, "sites": sites})
        return weights

    # --- what others say ------------------------------------------------------------------------------------------

    async def assign(self, **changes: Any) -> RunAssigned:
        self.fencing += 1
        facts = {
            "run_id": RunId(uuid7()),
            "project_id": ProjectId(uuid7()),
            "model_id": ModelId(uuid7()),
            "attempt": 1,
            "fencing": self.fencing,
            "payload": PAYLOAD,
        } | changes
        run = RunAssigned(net=self.name, framework="nvflare", job="nnunet", trusts=frozenset(TRUSTS), **facts)
        await self.scheduler.say(run)
        return run

    async def prepared(self, run: RunAssigned, trust: str) -> None:
        report = TrustPreparedRun(**of(run), cases=12, dataset_digest=DIGEST, cohort_digest=sha256(trust.encode()))
        await self.trusts[trust].say(report, trust=trust)

    async def prepared_everywhere(self, run: RunAssigned) -> None:
        async def asked() -> bool:
            commands = await self.said(PrepareRun)
            return sum((each.run_id, each.attempt) == (run.run_id, run.attempt) for each in commands) == len(TRUSTS)

        await eventually(asked)
        for trust in TRUSTS:
            await self.prepared(run, trust)

    async def ended(self, run: RunAssigned, *trusts: str) -> None:
        for trust in trusts or TRUSTS:
            await self.trusts[trust].say(TrustEndedRun(**of(run)), trust=trust)

    async def started(self, **changes: Any) -> tuple[RunAssigned, str]:
        """A run that trains, and its job."""
        run = await self.assign(**changes)
        await self.prepared_everywhere(run)
        return run, await self.job(run)

    async def job(self, run: RunAssigned) -> str:
        id_ = f"job-{run.run_id}.{run.attempt}"

        async def submitted() -> bool:
            return id_ in self.scripted()["jobs"]

        await eventually(submitted)
        return id_

    # --- what the controller said ---------------------------------------------------------------------------------

    async def said(self, type_: type[Any]) -> list[Any]:
        async with connect(self.postgres.app) as db:
            return await said(db, type_)

    async def hears(self, type_: type[Any], number: int = 1) -> list[Any]:
        """The messages of a type, once there are so many."""

        async def enough() -> list[Any] | None:
            found = await self.said(type_)
            return found if len(found) >= number else None

        return await eventually(enough)

    async def is_free_after(self, run: RunAssigned) -> None:
        """Wait until the net is free again."""

        async def said_so() -> bool:
            return any(event.fencing == run.fencing for event in await self.said(NetFree))

        await eventually(said_so)

    @property
    def store(self) -> Minio:
        return Minio(self.s3.endpoint.removeprefix("http://"), self.s3.access_key, self.s3.secret_key, secure=False)

    def stored(self, name: str) -> bytes:
        return self.store.get_object(self.s3.bucket, name).read()

    def keep(self, name: str, content: bytes) -> None:
        self.store.put_object(self.s3.bucket, name, io.BytesIO(content), len(content))


def of(run: RunAssigned) -> dict[str, Any]:
    return {"run_id": run.run_id, "project_id": run.project_id, "attempt": run.attempt}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def last_line(archive: Path) -> dict[str, Any]:
    """The last line of a run whose results lie at `archive`."""
    digest = sha256(archive.read_bytes())
    return {"kind": "finished", "archive": str(archive), "archive_sha256": digest, "seal_sha256": DIGEST}


@pytest.fixture
async def net(postgres: Database, kafka: Kafka, s3: S3, tmp_path: Path) -> AsyncIterator[Net]:
    async with AsyncExitStack() as stack:
        scheduler = await stack.enter_async_context(
            speaking(kafka.as_principal("service.scheduler"), "flip/hub/scheduler")
        )
        trusts = {
            trust: await stack.enter_async_context(
                speaking(kafka.as_principal(f"trust.{trust}"), f"flip/{trust}/trainer-node/net1")
            )
            for trust in TRUSTS
        }
        yield Net(tmp_path, postgres, kafka, s3, scheduler, trusts)


@pytest.mark.requirement("RUN-2")
async def test_a_net_is_free_when_a_trust_is_connected_and_tells_at_once_who_else_is(net: Net) -> None:
    net.connect()
    async with net.running():
        assert (await net.hears(NetHeartbeat))[0].state == "starting"
        assert await net.said(NetFree) == []
        net.connect("KCH")
        free = (await net.hears(NetFree))[0]
        assert (free.net, free.trusts, free.fencing) == (net.name, frozenset({"KCH"}), 0)
        assert free.resources == {"KCH": Resources(gpus=1, gpu_memory_mib=8192)}
        net.connect("KCH", "UCLH")

        async def told() -> bool | None:
            beats = [beat.trusts for beat in await net.said(NetHeartbeat) if beat.state == "free"]
            return frozenset(TRUSTS) in beats or None

        await eventually(told)


async def test_what_a_net_has_is_said_of_its_own_trusts_only(net: Net) -> None:
    with pytest.raises(ValidationError, match="GSTT"):
        async with net.running(resources={"GSTT": Resources(gpus=1)}):
            pass


async def test_a_run_is_carried_from_its_assignment_to_its_results(net: Net) -> None:
    net.connect(*TRUSTS)
    async with net.running():
        await net.hears(NetFree)
        run = await net.assign()
        commands = await net.hears(PrepareRun, 2)
        assert [(command.run_id, command.payload) for command in commands] == [(run.run_id, PAYLOAD)] * 2
        await net.prepared(run, "KCH")
        await net.hears(RunPrepared)
        assert net.scripted()["jobs"] == {}
        await net.prepared(run, "UCLH")
        await net.prepared(run, "UCLH")  # a Trust may say it twice
        job = await net.job(run)
        assert [(event.trust, event.cases) for event in await net.said(RunPrepared)] == [("KCH", 12), ("UCLH", 12)]
        submitted = net.scripted()["jobs"][job]
        assert submitted["trusts"] == list(TRUSTS)
        assert submitted["run_folder"] == str(net.run_folder(run))
        assert submitted["job"] == {
            "run_id": str(run.run_id),
            "dataset_name": "Dataset007_FLIP",
            "payload": PAYLOAD,
            "profile": {"name": "small"},
            "patience": {},
            "seed": run.run_id.int % 2**31,
            "aggregation_weights": {},
            "cohorts": {trust: sha256(trust.encode()) for trust in TRUSTS},
        }

        net.write(
            run,
            {"kind": "started", "sites": TRUSTS},
            {"kind": "fingerprint", "cases": dict.fromkeys(TRUSTS, 12)},
            {"kind": "plan-agreed", "digest": DIGEST, "sites": list(TRUSTS)},
            {"kind": "preprocessing"},
            {"kind": "training-started", "round": 0, "rounds": 2},
        )
        excluded = {"kind": "contribution-excluded", "round": 0, "site": "KCH", "reason": "not-finite"}
        net.write(run, {**excluded, "detail": "case 17 of Jane"})
        weights = [net.complete_round(run, number) for number in (0, 1)]
        archive = net.run_folder(run) / "results.zip"
        archive.write_bytes(b"PK")
        rounds = await net.hears(RoundComplete, 2)
        assert [(event.checkpoint.round, event.checkpoint.digest) for event in rounds] == [
            (number, sha256(content)) for number, content in enumerate(weights)
        ]
        assert [net.stored(event.checkpoint.object) for event in rounds] == weights
        assert [(event.size_bytes, event.file_digest) for event in rounds] == [
            (len(content), sha256(content)) for content in weights
        ]
        net.write(run, last_line(archive))
        net.end_job(job, "completed")
        collected = (await net.hears(ResultsCollected))[0]
        assert (net.stored(collected.object), collected.digest) == (b"PK", sha256(b"PK"))
        assert collected.seal == DIGEST
        assert collected.name == f"Dataset007_FLIP_2d_fold-all_2-rounds_{run.run_id}.zip"

        assert [command.forget for command in await net.hears(EndRun, 2)] == [False, False]
        await net.ended(run)
        assert [free.fencing for free in await net.hears(NetFree, 2)] == [0, run.fencing]
        assert [event.stage for event in await net.said(StageReached)] == [
            *("preparing", "fingerprint", "preprocessing", "training"),
        ]
        assert len(await net.said(PlanAgreed)) == len(await net.said(TrainingStarted)) == 1
        assert [(event.trust, event.round, event.reason) for event in await net.said(ContributionExcluded)] == [
            ("KCH", 0, "not-finite")
        ]
        metrics = [(event.trust, event.round, event.name) for event in await net.said(MetricReported)]
        assert metrics == [
            (trust, number, name)
            for number in (0, 1)
            for trust in TRUSTS
            for name in ("dice_per_class/lesion", "train_loss")
        ]
        assert await net.said(AttemptEnded) == []

        finished = RunFinished(run_id=run.run_id, project_id=run.project_id, model_id=run.model_id, results=DIGEST)
        await net.scheduler.say(finished)
        assert [command.forget for command in (await net.hears(EndRun, 4))[2:]] == [True, True]

        async def is_forgotten() -> bool:
            return not net.run_folder(run).exists()

        await eventually(is_forgotten)


@pytest.mark.requirement("RUN-2")
async def test_a_controller_goes_on_with_what_it_hears_without_looking_for_it(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    net.connect(*TRUSTS)
    async with net.running():
        await net.hears(NetFree)
        monkeypatch.setattr("flip_trainer_node.controller._ASK_S", 3600.0)  # from here on only news wakes it
        run, _ = await net.started()
        net.write(run, {"kind": "fingerprint", "cases": dict.fromkeys(TRUSTS, 12)})
        await net.hears(StageReached, 2)
        await net.scheduler.say(RunStopping(**of(run), net=net.name))
        await net.hears(EndRun, len(TRUSTS))
        await net.ended(run)
        await net.hears(AttemptEnded)


@pytest.mark.requirement("RUN-6")
async def test_a_stopped_run_is_ended_at_the_hub_and_at_every_trust(net: Net) -> None:
    net.connect(*TRUSTS)
    async with net.running():
        run, job = await net.started()
        await net.scheduler.say(RunStopping(**of(run), net=net.name))
        await net.hears(EndRun, 2)
        await net.ended(run)
        ended = (await net.hears(AttemptEnded))[0]
        assert (ended.outcome, ended.fencing) == ("stopped", run.fencing)
        assert net.scripted()["jobs"][job]["state"] == "aborted"
        await net.is_free_after(run)


@pytest.mark.requirement("RUN-6")
async def test_a_stop_is_told_in_time_though_a_trust_is_silent_but_the_net_is_not_free_before_it_is_clean(
    net: Net,
) -> None:
    net.connect(*TRUSTS)
    async with net.running():
        run, _ = await net.started()
        await net.scheduler.say(RunStopping(**of(run), net=net.name))
        assert (await net.hears(AttemptEnded))[0].outcome == "stopped"
        assert run.fencing not in {event.fencing for event in await net.said(NetFree)}
        await net.ended(run)
        await net.is_free_after(run)


@pytest.mark.requirement("RUN-3")
async def test_a_net_is_not_kept_for_a_trust_that_is_gone_for_good_and_says_whose_word_is_missing(net: Net) -> None:
    net.connect(*TRUSTS)
    async with net.running(ending_patience=timedelta(seconds=1)):
        run, _ = await net.started()
        await net.scheduler.say(RunStopping(**of(run), net=net.name))
        await net.hears(EndRun, 2)
        await net.ended(run, "KCH")
        await net.is_free_after(run)
        [missing] = await net.said(EndUnconfirmed)
        assert (missing.run_id, missing.attempt, missing.trusts) == (run.run_id, run.attempt, {"UCLH"})
        again, _ = await net.started()
        await net.ended(run, "UCLH")  # it is back, and has done what it was asked first
        await net.scheduler.say(RunStopping(**of(again), net=net.name))
        await net.hears(EndRun, 4)
        await net.ended(again)
        await net.is_free_after(again)


@pytest.mark.requirement("RUN-3")
@pytest.mark.requirement("RUN-9")
async def test_a_controller_that_begins_anew_tells_what_is_on_disk_once_and_gives_the_run_back(net: Net) -> None:
    net.connect(*TRUSTS)
    async with net.running():
        run, _ = await net.started()
        net.complete_round(run, 0)
        await net.hears(RoundComplete)
    net.complete_round(run, 1)
    async with net.running():
        ended = (await net.hears(AttemptEnded))[0]
        assert (ended.outcome, ended.reason) == ("interrupted", "controller-restarted")
        assert [event.checkpoint.round for event in await net.said(RoundComplete)] == [0, 1]
        await net.ended(run)
        checkpoint = (await net.said(RoundComplete))[1].checkpoint
        assert checkpoint.best is not None
        shutil.rmtree(net.run_folder(run))  # as on another net's disk

        again, job = await net.started(run_id=run.run_id, project_id=run.project_id, attempt=2, checkpoint=checkpoint)
        assert net.scripted()["jobs"][job]["job"]["payload"]["starting_fed_round"] == 2
        rounds = net.run_folder(again) / "rounds"
        assert sha256((rounds / "round_00001.npz").read_bytes()) == checkpoint.digest
        assert (rounds / "round_00001.sha256").read_text() == checkpoint.digest
        assert sha256((rounds / "round_00000.npz").read_bytes()) == checkpoint.best.digest
        assert (rounds / "round_00000.sha256").read_text() == checkpoint.best.digest
        best = {"round": 0, "digest": checkpoint.best.digest, "score": 0.75}
        assert json.loads((rounds / "round_00001.json").read_text()) == {"score": 0.5, "best": best}
        assert len(await net.said(RoundComplete)) == 2


@pytest.mark.requirement("RUN-9")
async def test_a_run_whose_checkpoint_is_gone_ends_with_that_reason(net: Net) -> None:
    net.connect(*TRUSTS)
    async with net.running():
        gone = Checkpoint(round=0, object=f"runs/{uuid7()}/rounds/0.1.npz", digest=DIGEST)
        run = await net.assign(checkpoint=gone)
        await net.prepared_everywhere(run)
        await net.hears(EndRun, 2)
        await net.ended(run)
        ended = (await net.hears(AttemptEnded))[0]
        assert (ended.outcome, ended.reason) == ("failed", "checkpoint-missing")


@pytest.mark.requirement("RUN-3")
@pytest.mark.parametrize(
    ("code", "outcome"), [("job-invalid", "failed"), ("attempt-differs", "interrupted"), ("job-deleted", "interrupted")]
)
async def test_a_job_that_the_net_will_never_take_ends_the_attempt_with_the_refusals_code(
    net: Net, code: str, outcome: str
) -> None:
    net.connect(*TRUSTS)
    net.refuse(submit=code)
    async with net.running():
        run = await net.assign()
        await net.prepared_everywhere(run)
        await net.hears(EndRun, 2)
        await net.ended(run)
        ended = (await net.hears(AttemptEnded))[0]
        assert (ended.outcome, ended.reason) == (outcome, code)
        await net.is_free_after(run)


@pytest.mark.requirement("RUN-3")
@pytest.mark.parametrize("passing", ["net-unreachable", "internal-error"])
async def test_a_job_that_the_net_has_forgotten_interrupts_the_attempt_and_a_net_that_is_away_does_not(
    net: Net, passing: str
) -> None:
    net.connect(*TRUSTS)
    net.refuse(submit=passing)
    async with net.running():
        run = await net.assign()
        await net.prepared_everywhere(run)
        assert {event.trust for event in await net.hears(RunPrepared, 2)} == set(TRUSTS)
        net.refuse()
        await net.job(run)
        assert await net.said(EndRun) == []
        net.refuse(status="job-unknown")
        await net.hears(EndRun, 2)
        await net.ended(run)
        ended = (await net.hears(AttemptEnded))[0]
        assert (ended.outcome, ended.reason) == ("interrupted", "job-unknown")


@pytest.mark.requirement("RUN-3")
async def test_a_round_whose_file_is_gone_at_the_hub_is_a_reason_and_the_net_takes_the_next_run(net: Net) -> None:
    net.connect(*TRUSTS)
    async with net.running():
        run, _ = await net.started()
        said = {"round": 0, "digest": DIGEST, "rounds": 2, "standing": {"score": None, "best": None}, "sites": {}}
        net.write(run, {"kind": "round-complete", **said})
        await net.hears(EndRun, 2)
        await net.ended(run)
        ended = (await net.hears(AttemptEnded))[0]
        assert (ended.outcome, ended.reason) == ("interrupted", "hub-file-missing")
        await net.is_free_after(run)
        await net.started()


@pytest.mark.requirement("RUN-3")
async def test_a_full_disk_at_the_hub_is_a_reason(net: Net) -> None:
    net.connect(*TRUSTS)
    weights = Checkpoint(round=0, object=f"runs/{uuid7()}/rounds/0.1.npz", digest=sha256(b"weights"))
    net.keep(weights.object, b"weights")
    async with net.running():
        run = await net.assign(checkpoint=weights)
        rounds = net.run_folder(run) / "rounds"
        rounds.mkdir(parents=True)
        (rounds / "round_00000.sha256").symlink_to("/dev/full")  # every write to it finds the disk full
        await net.prepared_everywhere(run)
        await net.hears(EndRun, 2)
        await net.ended(run)
        ended = (await net.hears(AttemptEnded))[0]
        assert (ended.outcome, ended.reason) == ("interrupted", "hub-disk-full")


async def test_a_trust_that_can_not_take_part_ends_the_run_with_its_reason(net: Net) -> None:
    net.connect(*TRUSTS)
    async with net.running():
        run = await net.assign()
        await net.hears(PrepareRun, 2)
        await net.trusts["UCLH"].say(TrustRefusedRun(**of(run), reason="too-few-cases"), trust="UCLH")
        ended = (await net.hears(AttemptEnded))[0]
        assert (ended.outcome, ended.reason) == ("failed", "too-few-cases")
        assert ended.detail == "UCLH can't take part: too-few-cases."


@pytest.mark.requirement("RUN-4")
async def test_a_run_that_needs_one_trust_goes_on_without_the_other_that_can_not_take_part(net: Net) -> None:
    net.connect(*TRUSTS)
    async with net.running():
        run = await net.assign(minimum_trusts=1, aggregation_weights={"UCLH": 0.5})
        await net.hears(PrepareRun, 2)
        await net.trusts["UCLH"].say(TrustRefusedRun(**of(run), reason="too-few-cases"), trust="UCLH")
        [left_out] = await net.hears(TrustLeftOut)
        assert (left_out.trust, left_out.reason) == ("UCLH", "too-few-cases")
        assert [command.run_id for command in await net.hears(EndRun)] == [run.run_id]
        await net.prepared(run, "KCH")
        job = await net.job(run)
        submitted = net.scripted()["jobs"][job]
        assert submitted["trusts"] == ["KCH"]
        assert (submitted["job"]["minimum_sites"], submitted["job"]["aggregation_weights"]) == (1, {})
        net.write(run, {"kind": "plan-agreed", "digest": DIGEST, "sites": ["KCH"]})
        assert (await net.hears(PlanAgreed))[0].by_trust == {"KCH": DIGEST}
        await net.trusts["UCLH"].say(WorkerStarted(net=net.name), trust="UCLH")
        await net.scheduler.say(RunStopping(**of(run), net=net.name))
        await net.hears(EndRun, 2)
        await net.ended(run, "KCH")
        await net.is_free_after(run)
        assert [(event.outcome, event.reason) for event in await net.said(AttemptEnded)] == [("stopped", "stopped")]
        await net.scheduler.say(RunStopped(run_id=run.run_id, project_id=run.project_id))
        assert [command.forget for command in await net.hears(EndRun, 4)][2:] == [True, True]


@pytest.mark.requirement("RUN-4")
@pytest.mark.requirement("RUN-9")
async def test_a_trust_that_stays_silent_while_preparing_is_left_out_or_ends_the_attempt(net: Net) -> None:
    net.connect(*TRUSTS)
    async with net.running(preparing_patience=timedelta(seconds=8)):
        run = await net.assign(minimum_trusts=1)
        await net.hears(PrepareRun, 2)
        await net.prepared(run, "KCH")
        [left_out] = await net.hears(TrustLeftOut)
        assert (left_out.trust, left_out.reason) == ("UCLH", "no-word")
        await net.prepared(run, "UCLH")  # too late
        job = await net.job(run)
        assert net.scripted()["jobs"][job]["trusts"] == ["KCH"]
        assert [event.trust for event in await net.said(RunPrepared)] == ["KCH"]
        net.end_job(job, "lost")
        await net.hears(EndRun, 2)
        await net.ended(run)
        await net.is_free_after(run)

        needs_both = await net.assign()
        await net.hears(EndRun, 4)
        await net.ended(needs_both)
        over = (await net.hears(AttemptEnded, 2))[1]
        assert (over.outcome, over.reason) == ("interrupted", "trusts-silent")
        assert over.detail.startswith("No word of KCH, UCLH while preparing")


@pytest.mark.parametrize(
    ("line", "outcome", "reason", "detail"),
    [
        (
            {
                "kind": kind,
                "reason": reason,
                "operation": "train_round",
                "sites": {"KCH": {"code": "no-answer", "detail": "case 17 of Jane"}},
                "detail": "case 17 of Jane",
            },
            kind,
            reason,
            "train_round failed at KCH: no-answer.",
        )
        for kind, reason in (("failed", "sites-failed"), ("interrupted", "sites-silent"))
    ],
)
async def test_how_a_job_ended_is_told_without_a_trusts_own_words(
    net: Net, line: dict[str, Any], outcome: str, reason: str, detail: str
) -> None:
    net.connect(*TRUSTS)
    async with net.running():
        run, job = await net.started()
        net.write(run, line)
        net.end_job(job, "failed")
        await net.hears(EndRun, 2)
        await net.ended(run)
        ended = (await net.hears(AttemptEnded))[0]
        assert (ended.outcome, ended.reason, ended.detail) == (outcome, reason, detail)


@pytest.mark.requirement("RUN-3")
async def test_a_job_that_ends_without_a_word_and_a_worker_that_begins_anew_interrupt_the_attempt(net: Net) -> None:
    net.connect(*TRUSTS)
    async with net.running():
        run, job = await net.started()
        net.end_job(job, "lost")
        await net.hears(EndRun, 2)
        await net.ended(run)
        assert [(event.outcome, event.reason) for event in await net.hears(AttemptEnded)] == [
            ("interrupted", "job-ended")
        ]
        again, job = await net.started(run_id=run.run_id, project_id=run.project_id, attempt=2)
        await net.trusts["KCH"].say(WorkerStarted(net="another"), trust="KCH")
        await net.trusts["KCH"].say(WorkerStarted(net=net.name), trust="KCH")
        await net.hears(EndRun, 4)
        await net.ended(again)
        assert (await net.hears(AttemptEnded, 2))[1].reason == "worker-restarted"
        assert net.scripted()["jobs"][job]["state"] == "aborted"


async def test_an_assignment_of_another_net_or_an_older_one_is_not_taken(net: Net) -> None:
    net.connect(*TRUSTS)
    async with net.running():
        run, _ = await net.started(fencing=5)
        await net.scheduler.say(run.model_copy(update={"net": "elsewhere", "fencing": 6, "run_id": RunId(uuid7())}))
        await net.scheduler.say(run.model_copy(update={"fencing": 4, "run_id": RunId(uuid7())}))
        await net.scheduler.say(RunStopping(**of(run), net=net.name))
        await net.hears(EndRun, 2)
        assert {command.run_id for command in await net.said(PrepareRun)} == {run.run_id}


@pytest.mark.requirement("NNU-7")
@pytest.mark.requirement("NNU-8")
async def test_a_prediction_takes_its_model_from_an_earlier_run_and_tells_scores_and_results(net: Net) -> None:
    net.connect(*TRUSTS)
    earlier = EarlierResults(run_id=RunId(uuid7()), digest=sha256(b"model"))
    net.keep(f"runs/{earlier.run_id}/results/{earlier.digest}.zip", b"model")
    async with net.running():
        await net.hears(NetFree)
        run, job = await net.started(payload=PREDICTION, earlier=earlier)
        assert [command.payload for command in await net.said(PrepareRun)] == [PREDICTION] * 2
        assert (net.run_folder(run) / "earlier.zip").read_bytes() == b"model"
        submitted = net.scripted()["jobs"][job]["job"]
        assert submitted == {
            "run_id": str(run.run_id),
            "payload": PREDICTION,
            "patience": {},
            "profile": {"name": "small"},
            "cohorts": {trust: sha256(trust.encode()) for trust in TRUSTS},
        }
        archive = net.run_folder(run) / "results.zip"
        archive.write_bytes(b"PK")
        scores = {"cases": 12, "dice": {"organ": {"cases": 12, "mean": 0.75}, "lesion": None}}
        sites = {"KCH": {"scores": scores}, "UCLH": {"scores": None}}
        net.write(
            run,
            {"kind": "predicting", "datasets": {"7": dict.fromkeys(TRUSTS, 12)}},
            {"kind": "predicted", "dataset": "7", "sites": sites},
            {"kind": "exported"},
            last_line(archive),
        )
        net.end_job(job, "completed")
        collected = (await net.hears(ResultsCollected))[0]
        assert collected.name == f"Dataset007_FLIP_predictions_{run.run_id}.zip"
        assert [event.stage for event in await net.said(StageReached)] == ["preparing", "predicting", "collecting"]
        metrics = [(event.trust, event.name, event.value) for event in await net.said(MetricReported)]
        assert metrics == [("KCH", "7/dice/organ", 0.75)]
        await net.ended(run)


@pytest.mark.requirement("NNU-7")
@pytest.mark.parametrize("kept", [None, b"another model"])
async def test_a_prediction_whose_model_is_not_what_it_was_fails_before_it_starts(net: Net, kept: bytes | None) -> None:
    net.connect(*TRUSTS)
    earlier = EarlierResults(run_id=RunId(uuid7()), digest=sha256(b"model"))
    if kept is not None:
        net.keep(f"runs/{earlier.run_id}/results/{earlier.digest}.zip", kept)
    async with net.running():
        await net.hears(NetFree)
        run = await net.assign(payload=PREDICTION, earlier=earlier)
        await net.prepared_everywhere(run)
        await net.hears(EndRun, 2)
        await net.ended(run)
        over = (await net.hears(AttemptEnded))[0]
        assert (over.outcome, over.reason) == ("failed", "model-missing")
