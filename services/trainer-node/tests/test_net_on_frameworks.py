"""A whole net on each framework: one controller and two workers, on small made-up images."""

import json
import socket
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import nibabel
import numpy as np
import pytest
from flip_chassis.database import connect
from flip_chassis.ids import uuid7
from flip_chassis.testing import Speaker, eventually, said, settings_for, speaking
from flip_contracts.apps import object_of_file
from flip_contracts.base import ModelId, ProjectId, RunId
from flip_contracts.imaging import study_digest
from flip_contracts.projects import Framework
from flip_contracts.scheduler import (
    AppFiles,
    AppPayload,
    EarlierResults,
    InferencePayload,
    RunAssigned,
    RunStopping,
    TrainingPayload,
)
from flip_contracts.trainer_node import (
    AttemptEnded,
    MetricReported,
    NetFree,
    NetHeartbeat,
    PlanAgreed,
    ResultsCollected,
    RoundComplete,
    RunPrepared,
    StageReached,
)
from flip_local.layout import Layout
from flip_local.testing import S3, Database, Kafka, PostgresServer
from flip_trainer_node.main import controller, worker
from flip_trainer_node.runtimes import RUNTIMES, Runtime
from flip_trainer_node.settings import ControllerSettings, WorkerSettings
from flip_trainer_node.trainers import processes_of
from minio import Minio
from pydantic import SecretStr

pytestmark = pytest.mark.parts

TRUSTS = ("KCH", "UCLH")
CASES = 10
QUERY = sha256(b"SELECT person_id, accession_id, sex FROM a_query").hexdigest()
EXAMPLES = Path(__file__).parents[3] / "examples"
EXAMPLE: Mapping[Framework, str] = {"nvflare": "segmentation-executor", "flower": "segmentation-flower"}
PROFILE = {
    "name": "test",
    "base_features": 4,
    "max_features": 8,
    "max_batch_size": 2,
    "iterations_per_epoch": 2,
    "validation_iterations": 1,
    "threads": 1,
    "augmentation_processes": 0,
    "intensity_voxels": 100_000,
}
PATIENCE_S = 300.0


class Net:
    """What the test sees of the net: the controller's event log, and a scheduler to speak with."""

    def __init__(self, folder: Path, postgres: Database, scheduler: Speaker, name: str, framework: Framework) -> None:
        self.folder = folder
        self.name = name
        self.framework: Framework = framework
        self._postgres = postgres
        self._scheduler = scheduler
        self._fencing = 0

    @property
    def runtime(self) -> Runtime:
        return RUNTIMES[self.framework]

    async def assign(self, project_id: ProjectId, rounds: int, run_id: RunId | None = None) -> RunAssigned:
        """Give the net a run. The number of the attempt is the framework's, so that both may train the same run."""
        payload = TrainingPayload(
            mode="training", num_rounds=rounds, dataset_id=7, model_configuration="2d", device="cpu"
        )
        return await self._assign(project_id, payload, run_id=run_id)

    async def predict(self, project_id: ProjectId, earlier: EarlierResults) -> RunAssigned:
        """Give the net a prediction with the model of an earlier run."""
        payload = InferencePayload(
            mode="inference",
            checkpoint_path=f"run:{earlier.run_id}",
            dataset_subdirs={"7": "imagesTr"},
            device="cpu",
        )
        return await self._assign(project_id, payload, earlier=earlier)

    async def run_app(self, project_id: ProjectId, model_id: ModelId, files: AppFiles) -> RunAssigned:
        """Give the net a run of a researcher's own app."""
        payload = AppPayload(mode="app", local_rounds=1)
        return await self._assign(project_id, payload, job="custom", model_id=model_id, files=files, query_digest=QUERY)

    async def _assign(
        self,
        project_id: ProjectId,
        payload: TrainingPayload | InferencePayload | AppPayload,
        run_id: RunId | None = None,
        **facts: Any,
    ) -> RunAssigned:
        self._fencing += 1
        usual = {"model_id": ModelId(uuid7()), "job": "nnunet"}
        run = RunAssigned(
            run_id=run_id or RunId(uuid7()),
            project_id=project_id,
            net=self.name,
            attempt=1 + list(RUNTIMES).index(self.framework),
            fencing=self._fencing,
            framework=self.framework,
            trusts=frozenset(TRUSTS),
            payload=payload.model_dump(mode="json"),
            **usual | facts,
        )
        await self._scheduler.say(run)
        return run

    async def stop(self, run: RunAssigned) -> None:
        stopping = RunStopping(run_id=run.run_id, project_id=run.project_id, attempt=run.attempt, net=self.name)
        await self._scheduler.say(stopping)

    async def said(self, type_: type[Any], run: RunAssigned) -> list[Any]:
        async with connect(self._postgres.app) as db:
            return [event for event in await said(db, type_) if event.run_id == run.run_id]

    def processes(self, run: RunAssigned) -> list[int]:
        return processes_of(self.runtime.trainer_script, run.run_id)

    async def hears(self, type_: type[Any], run: RunAssigned, number: int = 1) -> list[Any]:
        async def enough() -> list[Any] | None:
            assert not (ended := await self.said(AttemptEnded, run)) or type_ is AttemptEnded, ended
            found = await self.said(type_, run)
            return found if len(found) >= number else None

        return await eventually(enough, within_s=PATIENCE_S)

    async def is_free(self, fencing: int) -> None:
        """Waits until it has said so, and that all its Trusts are connected."""

        async def said_so() -> bool:
            async with connect(self._postgres.app) as db:
                free, alive = await said(db, NetFree), await said(db, NetHeartbeat)
            is_free = any(event.fencing == fencing for event in free)
            return is_free and any(event.trusts == frozenset(TRUSTS) for event in (*free, *alive))

        await eventually(said_so, within_s=PATIENCE_S)


def accession(trust: str, number: int) -> str:
    return f"RAX-{trust}-{number}"


def write_project(data: Path, project_id: ProjectId, trust: str) -> None:
    """A bright box in noise, elsewhere in each case, as the imaging service leaves them."""
    project, numbers = data / "projects" / str(project_id), np.random.default_rng(TRUSTS.index(trust))
    listed: list[dict[str, Any]] = []
    for number in range(CASES):
        label = np.zeros((24, 32, 32), np.uint8)
        z, y, x = numbers.integers(2, [12, 18, 18])
        label[z : z + 8, y : y + 10, x : x + 10] = 1
        image = np.round(numbers.normal(100, 10, label.shape) + 80 * label).astype(np.int16)
        case: dict[str, Any] = {"case": f"{trust}{number}", "study": study_digest(project_id, accession(trust, number))}
        for kind, voxels in (("image", image), ("label", label)):
            file = project / f"{kind}s" / f"{trust}{number}.nii.gz"
            file.parent.mkdir(parents=True, exist_ok=True)
            nibabel.Nifti1Image(voxels, np.eye(4)).to_filename(file)
            case[kind] = {"path": f"{kind}s/{file.name}", "sha256": sha256(file.read_bytes()).hexdigest()}
        case["images"] = [case.pop("image")]
        listed.append(case)
    body = {"project_id": str(project_id), "labels": {"box": 1}, "channels": ["MRI"], "cases": listed}
    (project / "manifest.json").write_text(json.dumps(body))


@pytest.fixture(scope="module", params=["nvflare", "flower"])
def framework(request: pytest.FixtureRequest) -> Framework:
    return request.param


@dataclass
class Twins:
    """A run that each framework trains, and what each came to: the digests of the plan and of each round's weights."""

    run_id: RunId = field(default_factory=lambda: RunId(uuid7()))
    digests: dict[Framework, tuple[str, ...]] = field(default_factory=dict[Framework, tuple[str, ...]])


@pytest.fixture(scope="module")
def twins() -> Twins:
    return Twins()


@pytest.fixture
def kits(framework: Framework, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kits of a net of the test's own; its server listens on ports that were free."""
    folder = tmp_path_factory.mktemp("kits")
    python, module = Layout().trainer_python(framework), RUNTIMES[framework].module("provision")
    command = (python, *module, "--net", "net1", "--trusts", ",".join(TRUSTS), "--port", str(free_port()))
    subprocess.run([*command, "--output", folder], check=True)
    return folder


def free_port() -> int:
    """A port that was free, as was the next one, which the hub's own parts of a Flower net use."""
    while True:
        with socket.socket() as probe, socket.socket() as next_probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            with suppress(OSError, OverflowError):
                next_probe.bind(("127.0.0.1", port + 1))
                return port


@pytest.fixture
async def project(
    postgres_server: PostgresServer, tmp_path: Path
) -> AsyncIterator[tuple[ProjectId, dict[str, Database]]]:
    """A project with images, labels and a frozen cohort at both Trusts; the Trusts' cohort databases."""
    project_id = ProjectId(uuid7())
    async with AsyncExitStack() as stack:
        cohorts = {trust: stack.enter_context(postgres_server.database("cohort")) for trust in TRUSTS}
        for trust, cohort in cohorts.items():
            write_project(tmp_path / trust / "data", project_id, trust)
            async with connect(cohort.owner) as db:
                await db.execute(
                    "CREATE SCHEMA frozen; CREATE TABLE frozen.cohort_member"
                    "(project_id uuid NOT NULL, person_id bigint NOT NULL, accession_id text,"
                    " query_digest text NOT NULL, rows jsonb NOT NULL);"
                    f"GRANT USAGE ON SCHEMA frozen TO {cohort.name};"
                    f"GRANT SELECT ON frozen.cohort_member TO {cohort.name}"
                )
                members = [
                    (project_id, number, accession(trust, number), QUERY, [{"sex": "F"}]) for number in range(CASES)
                ]
                await db.executemany("INSERT INTO frozen.cohort_member VALUES ($1, $2, $3, $4, $5)", members)
        yield project_id, cohorts


@pytest.fixture
async def net(
    postgres: Database,
    postgres_server: PostgresServer,
    kafka: Kafka,
    s3: S3,
    tmp_path: Path,
    framework: Framework,
    kits: Path,
    project: tuple[ProjectId, dict[str, Database]],
) -> AsyncIterator[Net]:
    name = f"n{uuid7().hex[-8:]}"
    common = {"net": name, "framework": framework, "trainer_python": Layout().trainer_python(framework)}
    async with AsyncExitStack() as stack:
        hub = settings_for(
            ControllerSettings,
            postgres,
            kafka.as_principal("service.trainer-node"),
            kafka.group("service.trainer-node"),
            trusts=frozenset(TRUSTS),
            kit=kits / "server",
            admin_kit=kits / "admin",
            work=tmp_path / "hub",
            s3_endpoint=s3.endpoint,
            s3_access_key=SecretStr(s3.access_key),
            s3_secret_key=SecretStr(s3.secret_key),
            s3_bucket=s3.bucket,
            compute_profile=PROFILE,
            **common,
        )
        for trust, cohort in project[1].items():
            at_trust = settings_for(
                WorkerSettings,
                stack.enter_context(postgres_server.database("worker")),
                kafka.as_principal(f"trust.{trust}"),
                kafka.group(f"trust.{trust}"),
                trust=trust,
                kit=kits / trust,
                work=tmp_path / trust / "work",
                data=tmp_path / trust / "data",
                frozen_cohort=SecretStr(cohort.app),
                **common,
            )
            await stack.enter_async_context(worker(at_trust))
        await stack.enter_async_context(controller(hub))
        speaker = speaking(kafka.as_principal("service.scheduler"), "flip/hub/scheduler")
        yield Net(tmp_path, postgres, await stack.enter_async_context(speaker), name, framework)


@pytest.mark.requirement("RUN-2")
@pytest.mark.requirement("NNU-2")
@pytest.mark.requirement("NNU-4")
@pytest.mark.requirement("NNU-8")
@pytest.mark.requirement("NNU-10")
@pytest.mark.requirement("FILE-6")
async def test_a_run_is_trained_the_same_on_each_framework_its_model_predicts_and_another_is_stopped_leaving_no_process(
    net: Net, project: tuple[ProjectId, dict[str, Database]], s3: S3, twins: Twins
) -> None:
    await net.is_free(0)
    run = await net.assign(project[0], rounds=2, run_id=twins.run_id)
    assert [event.cases for event in await net.hears(RunPrepared, run, 2)] == [CASES, CASES]
    plan = (await net.hears(PlanAgreed, run))[0]
    assert plan.by_trust.keys() == set(TRUSTS)
    rounds = await net.hears(RoundComplete, run, 2)
    twins.digests[net.framework] = (plan.plan_digest, *(event.checkpoint.digest for event in rounds))
    assert len(set(twins.digests.values())) == 1
    collected = (await net.hears(ResultsCollected, run))[0]
    assert [event.stage for event in await net.said(StageReached, run)] == [
        *("preparing", "fingerprint", "preprocessing", "training", "collecting")
    ]
    assert [event.checkpoint.round for event in rounds] == [0, 1]
    losses = [event for event in await net.said(MetricReported, run) if event.name == "train_loss"]
    assert [(event.trust, event.round) for event in losses] == [
        (trust, number) for number in (0, 1) for trust in TRUSTS
    ]
    store = Minio(s3.endpoint.removeprefix("http://"), s3.access_key, s3.secret_key, secure=False)
    archive = net.folder / "results.zip"
    store.fget_object(s3.bucket, collected.object, str(archive))
    assert sha256(archive.read_bytes()).hexdigest() == collected.digest
    with ZipFile(archive) as results:
        assert any(name.endswith("checkpoint_final.pth") for name in results.namelist())
        [seal] = [results.read(name) for name in results.namelist() if name.endswith("seal.json")]
    assert sha256(seal).hexdigest() == collected.seal
    assert set(json.loads(seal)["sites"]["KCH"]) == {"cases", "cohort", "data", "versions"}
    prepared = {event.trust: event.cohort_digest for event in await net.said(RunPrepared, run)}
    assert {trust: site["cohort"] for trust, site in json.loads(seal)["sites"].items()} == prepared
    await net.is_free(run.fencing)

    prediction = await net.predict(project[0], EarlierResults(run_id=run.run_id, digest=collected.digest))
    predicted = (await net.hears(ResultsCollected, prediction))[0]
    assert [event.stage for event in await net.said(StageReached, prediction)] == [
        *("preparing", "predicting", "collecting")
    ]
    store.fget_object(s3.bucket, predicted.object, str(archive))
    with ZipFile(archive) as results:
        assert set(results.namelist()) == {"predictions/seal.json", "predictions/scores.json"}, "masks stay"
        scores = json.loads(results.read("predictions/scores.json"))["7"]
    assert {trust: (site["cases"], site["masks"]) for trust, site in scores.items()} == dict.fromkeys(
        TRUSTS, (CASES, None)
    )
    await net.is_free(prediction.fencing)

    stopped = await net.assign(project[0], rounds=500)
    await net.hears(RoundComplete, stopped)
    assert len(net.processes(stopped)) >= len(TRUSTS)
    await net.stop(stopped)
    assert (await net.hears(AttemptEnded, stopped))[0].outcome == "stopped"
    assert net.processes(stopped) == []
    await net.is_free(stopped.fencing)


def keep_files(s3: S3, model_id: ModelId, app: Path) -> AppFiles:
    """The files of an app in the store, as their scan has left them; their digests."""
    store = Minio(s3.endpoint.removeprefix("http://"), s3.access_key, s3.secret_key, secure=False)
    files: AppFiles = {}
    for file in (each for each in app.rglob("*") if each.is_file() and "__pycache__" not in each.parts):
        digest = sha256(file.read_bytes()).hexdigest()
        store.fput_object(s3.bucket, object_of_file(model_id, digest), str(file))
        files[file.relative_to(app).as_posix()] = digest
    return files


@pytest.mark.requirement("RUN-10")
@pytest.mark.requirement("FILE-5")
@pytest.mark.requirement("FILE-6")
async def test_a_researchers_app_is_trained_on_the_projects_data_and_sealed_with_its_files(
    net: Net, project: tuple[ProjectId, dict[str, Database]], s3: S3
) -> None:
    await net.is_free(0)
    model_id = ModelId(uuid7())
    files = keep_files(s3, model_id, EXAMPLES / EXAMPLE[net.framework])
    run = await net.run_app(project[0], model_id, files)
    assert [event.cases for event in await net.hears(RunPrepared, run, 2)] == [CASES, CASES]
    collected = (await net.hears(ResultsCollected, run))[0]
    assert [event.stage for event in await net.said(StageReached, run)] == [
        *("preparing", "training", "validating", "collecting")
    ]
    rounds = await net.said(RoundComplete, run)
    assert [event.checkpoint.round for event in rounds] == list(range(rounds[0].rounds))
    points = [
        (event.trust, event.round, event.name, event.axis, event.x) for event in await net.said(MetricReported, run)
    ]
    assert {trust for trust, *_ in points} == set(TRUSTS)
    assert len(points) == len(set(points)), "each point is told once"
    store = Minio(s3.endpoint.removeprefix("http://"), s3.access_key, s3.secret_key, secure=False)
    archive = net.folder / "results.zip"
    store.fget_object(s3.bucket, collected.object, str(archive))
    with ZipFile(archive) as results:
        names = {Path(name).name for name in results.namelist()}
        [seal] = [json.loads(results.read(name)) for name in results.namelist() if name.endswith("seal.json")]
    assert {"FL_global_model.pt", "cross_val_results.json"} <= names
    assert (seal["job"]["files"], seal["job"]["query"]) == (files, QUERY)
    prepared = {event.trust: event.cohort_digest for event in await net.said(RunPrepared, run)}
    assert {trust: site["cohort"] for trust, site in seal["sites"].items()} == prepared
    await net.is_free(run.fencing)

    spoilt = files | {"models.py": "e" * 64}
    lost = await net.run_app(project[0], model_id, spoilt)
    assert [event.reason for event in await net.hears(AttemptEnded, lost)] == ["app-file-missing"]
