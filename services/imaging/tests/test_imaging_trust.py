"""A Trust's role on real parts: PACS to archive to NIfTI, labels, failures, a crash, deletion; and nobody's name."""

import asyncio
import gzip
import hashlib
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import nibabel as nib
import numpy as np
import pytest
from fastapi import FastAPI
from flip_chassis.database import Connection, connect
from flip_chassis.ids import uuid7
from flip_chassis.testing import Speaker, client, eventually, said, settings_for, speaking
from flip_contracts.base import ProjectId, RunId
from flip_contracts.imaging import (
    DeleteImages,
    ImportStudies,
    TrustDeletedImages,
    TrustImagesReady,
    TrustImportFailed,
    TrustImportProgressed,
    TrustRegisteredDataset,
    TrustRegisteredLabels,
    TrustWithdrewDataset,
    study_digest,
)
from flip_contracts.trainer_node import PrepareRun
from flip_imaging.archive import OrthancArchive
from flip_imaging.dicomweb import DicomWebServer
from flip_imaging.domain import (
    DatasetAdopted,
    DatasetDropped,
    ImportStarted,
    StudyEvent,
    StudyImported,
    StudyImportFailed,
)
from flip_imaging.importer import Importer
from flip_imaging.main import trust
from flip_imaging.pacs import DicomWebPacs
from flip_imaging.ports import StudyNotFound
from flip_imaging.pseudonyms import ProjectKey
from flip_imaging.settings import TrustImagingSettings
from flip_imaging.testing import Scan, make_dataset, make_scan, voxels_of
from flip_local.testing import Kafka, Orthanc, PostgresServer, TrustImages
from pydantic import SecretStr
from pydicom import Dataset, dcmread

pytestmark = pytest.mark.parts

TRUST_KEY = "0123456789abcdef0123456789abcdef"
TOKEN = "operator-of-kch"
NIFTI_HEADER_BYTES = 352
PATIENCE_S = 180
LABELS = {"striatum": 1, "thalamus": 2, "hippocampus_amygdala": 3}


def server(orthanc: Orthanc) -> DicomWebServer:
    return DicomWebServer(orthanc.dicom_web, orthanc.user, orthanc.password)


def new_mark() -> str:
    """What sets the studies of one test apart in the PACS that all tests share."""
    return uuid4().hex[:6].upper()


@dataclass(slots=True)
class Trust:
    """Everything around a Trust's role, and one project of its own; `http` is its operator's client, once it runs."""

    settings: TrustImagingSettings
    images: TrustImages
    db: Connection
    cohort: Connection
    hub: Speaker
    trainer: Speaker
    scratch: Path
    app: FastAPI = field(default_factory=FastAPI)
    http: httpx.AsyncClient = field(default_factory=httpx.AsyncClient)
    project_id: ProjectId = field(default_factory=lambda: ProjectId(uuid7()))
    mark: str = field(default_factory=new_mark)

    @property
    def key(self) -> ProjectKey:
        return ProjectKey.derive(TRUST_KEY.encode(), self.project_id)

    @property
    def folder(self) -> Path:
        return self.settings.data / "projects" / str(self.project_id)

    @property
    def manifest(self) -> dict[str, Any]:
        return json.loads((self.folder / "manifest.json").read_bytes())

    def scan(self, number: int) -> Scan:
        """A patient's scan under an accession number that no other test uses."""
        return make_scan(number, self.mark)

    def case(self, scan: Scan) -> str:
        return self.key.case(scan.patient.accession)

    async def fill_pacs(self, *scans: Scan) -> None:
        """Put these studies into the PACS."""
        for scan in scans:
            folder = self.scratch / f"pacs-{scan.patient.number}-{uuid4().hex[:6]}"
            folder.mkdir()
            await OrthancArchive(server(self.images.pacs)).store(scan.write(folder))

    async def freeze(self, *scans: Scan) -> None:
        """Freeze a cohort of these patients."""
        await self.cohort.executemany(
            "INSERT INTO frozen.cohort_member (project_id, person_id, accession_id) VALUES ($1, $2, $3)",
            [(self.project_id, scan.patient.person_id, scan.patient.accession) for scan in scans],
        )

    async def ask(self) -> None:
        """Let the hub ask for the project's images."""
        await self.hub.say(ImportStudies(project_id=self.project_id), trust="KCH")

    async def begin_training(self) -> None:
        """Let a run be prepared from the project."""
        run = PrepareRun(run_id=RunId(uuid7()), project_id=self.project_id, attempt=1, net="net1", payload={})
        await self.trainer.say(run, trust="KCH")
        query = "SELECT training FROM imaging_project WHERE project_id = $1"
        await eventually(lambda: self.db.fetchval(query, self.project_id))

    @property
    def offered(self) -> Path:
        """The folder with the data sets that the operator may register."""
        assert self.settings.datasets is not None
        return self.settings.datasets

    @property
    def dataset(self) -> str:
        """The route of the project's ready data set."""
        return f"/api/imaging/trust/projects/{self.project_id}/dataset"

    async def register(self, name: str, *, dry_run: bool = False) -> httpx.Response:
        """Ask for a ready data set to stand in for the project's studies."""
        return await self.http.post(self.dataset, params={"dry_run": dry_run}, json={"name": name})

    @asynccontextmanager
    async def running(self, **changes: Any) -> AsyncGenerator[None]:
        """The role, running."""
        settings = self.settings.model_copy(update=changes)
        async with trust(settings) as self.app, client(nullcontext(self.app)) as self.http:
            self.http.headers["Authorization"] = f"Bearer {TOKEN}"
            yield

    async def states(self) -> dict[str, str]:
        """The state of each study by its case."""
        rows = await self.db.fetch("SELECT case_name, state FROM study WHERE project_id = $1", self.project_id)
        return {row["case_name"]: row["state"] for row in rows}

    async def reach(self, **states: str) -> None:
        """Wait until the studies are in these states."""
        await eventually(lambda: self._are(states), within_s=PATIENCE_S)

    async def _are(self, states: dict[str, str]) -> bool:
        return await self.states() == states

    async def imported(self, *scans: Scan) -> None:
        """Wait until exactly these studies are imported."""
        await self.reach(**{self.case(scan): "imported" for scan in scans})

    async def told(self, type_: type[Any]) -> list[Any]:
        """What the service has said of this project, by type."""
        return [message for message in await said(self.db, type_) if message.project_id == self.project_id]

    async def has_archived(self, scan: Scan) -> bool:
        """Whether the archive holds anything of a study."""
        try:
            return bool(await DicomWebPacs(server(self.images.archive)).find(self.case(scan)))
        except StudyNotFound:
            return False

    async def archived(self, scan: Scan) -> list[Dataset]:
        """What the archive holds of a study."""
        into = self.scratch / f"archived-{uuid4().hex[:6]}"
        into.mkdir()
        archive = DicomWebPacs(server(self.images.archive))
        return [dcmread(file) for file in await archive.fetch(await archive.find(self.case(scan)), into)]


@asynccontextmanager
async def a_trust(
    postgres_server: PostgresServer, kafka: Kafka, orthanc: TrustImages, folder: Path
) -> AsyncGenerator[Trust]:
    """A Trust with databases of its own, not running yet."""
    (folder / "key").write_text(TRUST_KEY)
    (folder / "token").write_text(TOKEN)
    async with AsyncExitStack() as stack:
        own = stack.enter_context(postgres_server.database("imaging"))
        cohort = stack.enter_context(postgres_server.database("cohort"))
        owner = await stack.enter_async_context(connect(cohort.owner))
        await owner.execute(
            "CREATE SCHEMA frozen; CREATE TABLE frozen.cohort_member"
            " (project_id uuid NOT NULL, person_id bigint NOT NULL, accession_id text);"
            f"GRANT USAGE ON SCHEMA frozen TO {cohort.name}; GRANT SELECT ON frozen.cohort_member TO {cohort.name}"
        )
        settings = settings_for(
            TrustImagingSettings,
            own,
            kafka.as_principal("trust.KCH"),
            kafka.group("trust.KCH"),
            role="trust",
            trust="KCH",
            data=folder / "data",
            datasets=folder / "datasets",
            frozen_cohort=SecretStr(cohort.app),
            pseudonym_key_file=folder / "key",
            operator_token_file=folder / "token",
            pacs_url=orthanc.pacs.dicom_web,
            pacs_user=orthanc.pacs.user,
            pacs_password=SecretStr(orthanc.pacs.password),
            archive_url=orthanc.archive.dicom_web,
            archive_user=orthanc.archive.user,
            archive_password=SecretStr(orthanc.archive.password),
            imports_at_once=1,
            lease_s=2,
        )

        async def speaker(service: str) -> Speaker:
            principal = kafka.as_principal(f"service.{service}")
            return await stack.enter_async_context(speaking(principal, f"flip/hub/{service}"))

        db = await stack.enter_async_context(connect(own.owner))
        yield Trust(settings, orthanc, db, owner, await speaker("imaging"), await speaker("trainer-node"), folder)


@pytest.fixture
async def alone(
    postgres_server: PostgresServer, kafka: Kafka, orthanc: TrustImages, tmp_path: Path
) -> AsyncGenerator[Trust]:
    """A Trust of this test's own, which the test runs as it needs it."""
    async with a_trust(postgres_server, kafka, orthanc, tmp_path) as kch:
        yield kch


@pytest.fixture(scope="module")
async def running(
    postgres_server: PostgresServer, kafka: Kafka, orthanc: TrustImages, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Trust]:
    """A Trust that runs for all tests that need nothing special of it."""
    async with (
        a_trust(postgres_server, kafka, orthanc, tmp_path_factory.mktemp("kch")) as kch,
        kch.running(disclosure_threshold=1, reimport_cap=1, first_retry_s=0.1),
    ):
        yield kch


@pytest.fixture
def kch(running: Trust, tmp_path: Path) -> Trust:
    """A new project at the Trust that runs for all tests."""
    return replace(running, scratch=tmp_path, project_id=ProjectId(uuid7()), mark=new_mark())


def voxels(file: Path) -> np.ndarray:
    return np.asanyarray(nib.Nifti1Image.from_filename(file).dataobj)


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def multipart(manifest: dict[str, str], files: Sequence[Path]) -> list[tuple[str, tuple[str, bytes]]]:
    table = "accession_id,file\n" + "".join(f"{accession},{file}\n" for accession, file in manifest.items())
    sent = [("files", (file.name, file.read_bytes())) for file in files]
    return [("manifest", ("manifest.csv", table.encode())), *sent]


async def send_labels(kch: Trust, *scans: Scan, dry_run: bool = False, **more: Any) -> httpx.Response:
    files = {scan.patient.accession: scan.write_segmentation(kch.scratch / f"{uuid4().hex}.dcm") for scan in scans}
    return await kch.http.post(
        f"/api/imaging/trust/projects/{kch.project_id}/labels",
        params={"dry_run": dry_run},
        files=multipart({accession: file.name for accession, file in files.items()}, list(files.values())),
        **more,
    )


@pytest.mark.requirement("IMG-1")
@pytest.mark.requirement("IMG-4")
@pytest.mark.requirement("IMG-5")
async def test_the_frozen_cohort_comes_voxel_by_voxel_and_nobodys_name_comes_along(
    kch: Trust, capfd: pytest.CaptureFixture[str]
) -> None:
    scans = [kch.scan(0), kch.scan(1)]
    await kch.fill_pacs(*scans)
    await kch.freeze(*scans)
    await kch.ask()
    await kch.imported(*scans)
    await eventually(lambda: kch.told(TrustImagesReady))

    manifest = kch.manifest
    assert manifest["channels"] == ["MRI"]
    assert [case["case"] for case in manifest["cases"]] == sorted(kch.case(scan) for scan in scans)
    studies = {kch.case(scan): study_digest(kch.project_id, scan.patient.accession) for scan in scans}
    assert {case["case"]: case["study"] for case in manifest["cases"]} == studies
    for case in manifest["cases"]:
        [image] = case["images"]
        assert sha256(kch.folder / image["path"]) == image["sha256"]
        assert case["label"] is None
    for scan in scans:
        image = nib.Nifti1Image.from_filename(kch.folder / "images" / f"{kch.case(scan)}.nii.gz")
        assert np.array_equal(np.asanyarray(image.dataobj), scan.volume.image)
        assert np.allclose(np.asarray(image.affine), scan.volume.affine, atol=1e-4)

    rows = await kch.db.fetch("SELECT convert_from(payload, 'UTF8') AS body, key, actor FROM event_log")
    archived = [dataset for scan in scans for dataset in await kch.archived(scan)]
    headers = [gzip.decompress(file.read_bytes())[:NIFTI_HEADER_BYTES] for file in kch.folder.glob("*/*.gz")]
    everywhere = {
        "events": "".join(str(dict(row)) for row in rows),
        "logs": "".join(capfd.readouterr()),
        "archive": "".join(map(str, archived)),
        "headers": b"".join(headers).decode("latin1"),
        "manifest": (kch.folder / "manifest.json").read_text(),
        "names of files": " ".join(str(path) for path in kch.settings.data.rglob("*")),
    }
    for scan in scans:
        planted = {*scan.planted, str(scan.series[0].StudyInstanceUID)}
        assert {place: [word for word in planted if word in text] for place, text in everywhere.items()} == {
            place: [] for place in everywhere
        }


@pytest.mark.requirement("IMG-2")
async def test_what_the_hub_hears_holds_no_small_count(alone: Trust) -> None:
    scans = [alone.scan(0), alone.scan(1)]
    await alone.fill_pacs(scans[0])
    await alone.freeze(*scans)
    async with alone.running(reimport_cap=0):
        await alone.ask()
        await alone.reach(**{alone.case(scans[0]): "imported", alone.case(scans[1]): "capped"})
        [ready] = await eventually(lambda: alone.told(TrustImagesReady))
    assert (ready.imported, ready.failed) == ("suppressed", "suppressed")
    progress = await alone.told(TrustImportProgressed)
    assert {count for report in progress for count in report.counts.model_dump().values()} <= {0, "suppressed"}
    assert [(report.reason, report.studies) for report in await alone.told(TrustImportFailed)] == [
        ("not-found", "suppressed")
    ]


@pytest.mark.requirement("IMG-1")
async def test_asking_twice_changes_nothing(kch: Trust) -> None:
    scan, later = kch.scan(2), kch.scan(3)
    await kch.fill_pacs(scan, later)
    await kch.freeze(scan)
    await kch.ask()
    await kch.imported(scan)
    events = await kch.told(StudyEvent)
    image = kch.folder / "images" / f"{kch.case(scan)}.nii.gz"
    before = image.stat()
    await kch.freeze(later)  # only shows that the second command was heard
    await kch.ask()
    await kch.imported(scan, later)
    assert (await kch.told(StudyEvent))[: len(events)] == events
    assert [event for event in await kch.told(ImportStarted) if event.study_id == events[0].study_id] == [events[1]]
    assert image.stat().st_mtime_ns == before.st_mtime_ns
    assert len(await kch.archived(scan)) == len(scan.series)


@pytest.mark.requirement("IMG-3")
async def test_one_bad_study_never_stops_the_others_and_is_tried_again_by_itself(alone: Trust) -> None:
    good, missing, burnt = alone.scan(4), alone.scan(5), alone.scan(6)
    burnt.series[0].BurnedInAnnotation = "YES"
    await alone.fill_pacs(good, burnt)
    await alone.freeze(missing, burnt, good)
    async with alone.running(reimport_cap=50, first_retry_s=0.1):
        await alone.ask()
        await eventually(lambda: _failed_twice(alone), within_s=PATIENCE_S)
        reasons = {event.reason for event in await alone.told(StudyImportFailed)}
        assert reasons == {"not-found", "deidentification-refused"}
        await alone.fill_pacs(missing)
        await eventually(lambda: _is(alone, missing, "imported"), within_s=PATIENCE_S)
        assert (await alone.states())[alone.case(good)] == "imported"
    assert not await alone.has_archived(burnt)


async def _failed_twice(alone: Trust) -> bool:
    return len(await alone.told(StudyImportFailed)) >= 4


async def _is(alone: Trust, scan: Scan, state: str) -> bool:
    return (await alone.states()).get(alone.case(scan)) == state


@pytest.mark.requirement("IMG-3")
async def test_a_study_at_the_cap_rests_until_the_operator_starts_it_again(kch: Trust) -> None:
    scan = kch.scan(7)
    await kch.freeze(scan)
    await kch.ask()
    await kch.reach(**{kch.case(scan): "capped"})
    [study] = (await kch.http.get(f"/api/imaging/trust/projects/{kch.project_id}/studies")).json()
    assert (study["state"], study["reason"], study["attempts"]) == ("capped", "not-found", 2)
    assert study["accession_id"] == scan.patient.accession
    await kch.fill_pacs(scan)
    retry = f"/api/imaging/trust/projects/{kch.project_id}/studies/{study['study_id']}/retry"
    assert (await kch.http.post(retry)).status_code == 202
    await kch.imported(scan)
    again = await kch.http.post(retry)
    assert (again.status_code, again.json()["code"], again.json()["state"]) == (409, "study-not-failed", "imported")
    actors = await kch.db.fetch("SELECT DISTINCT actor FROM event_log WHERE type LIKE '%ImportRetried%'")
    assert [row["actor"] for row in actors] == ["operator:KCH"]


@pytest.mark.requirement("IMG-3")
async def test_a_process_killed_in_the_middle_of_an_import_resumes(alone: Trust) -> None:
    scan = alone.scan(8)
    await alone.fill_pacs(scan)
    await alone.freeze(scan)
    asked = asyncio.Event()

    async def fall_silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await asyncio.Event().wait()
        writer.close()

    silent = await asyncio.start_server(fall_silent, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}/dicom-web"
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("flip-imaging")),
        env=environment(alone.settings.model_copy(update={"pacs_url": url})),
    )
    await alone.ask()
    async with asyncio.timeout(PATIENCE_S):
        await asked.wait()
    await alone.reach(**{alone.case(scan): "importing"})
    process.send_signal(signal.SIGKILL)
    await process.wait()
    async with alone.running():
        await alone.imported(scan)
    assert [event.attempt for event in await alone.told(ImportStarted)] == [1, 2]
    assert list((alone.settings.data / "spool").iterdir()) == []
    silent.close()


def environment(settings: TrustImagingSettings) -> dict[str, str]:
    """The settings as a process gets them."""
    told: dict[str, str] = {}
    for name, value in settings:
        if value is not None:
            plain = value.get_secret_value() if isinstance(value, SecretStr) else value
            told[f"FLIP_{name.upper()}"] = json.dumps(sorted(plain)) if isinstance(plain, frozenset) else str(plain)
    return {**os.environ, **told}


@pytest.mark.requirement("IMG-6")
@pytest.mark.requirement("IMG-5")
async def test_labels_are_checked_by_a_dry_run_and_then_lie_voxel_by_voxel_on_the_image(kch: Trust) -> None:
    scans, unlabelled, stranger = [kch.scan(0), kch.scan(1)], kch.scan(2), kch.scan(3)
    await kch.fill_pacs(*scans, unlabelled)
    await kch.freeze(*scans, unlabelled)
    await kch.ask()
    await kch.imported(*scans, unlabelled)
    before = kch.manifest
    report = (await send_labels(kch, *scans, stranger, dry_run=True)).json()
    assert report["matched"] == sorted(scan.patient.accession for scan in scans)
    assert report["missing_label"] == [unlabelled.patient.accession]
    assert report["unknown_accession"] == [stranger.patient.accession]
    assert (report["problems"], report["labels"]) == ([], LABELS)
    assert report["studies_by_label"] == dict.fromkeys(LABELS, 2)
    assert kch.manifest == before
    assert list(kch.folder.glob("labels/*")) == []
    assert len(await kch.archived(scans[0])) == len(scans[0].series)
    assert await kch.told(TrustRegisteredLabels) == []

    assert (await send_labels(kch, *scans, stranger)).status_code == 200
    events = await kch.told(StudyEvent)
    assert (await send_labels(kch, *scans)).json()["replaced"] == []
    assert await kch.told(StudyEvent) == events
    projects = (await kch.http.get("/api/imaging/trust/projects")).json()
    [mine] = [project for project in projects if project["project_id"] == str(kch.project_id)]
    assert (mine["labelled"], mine["labels"], mine["counts"]["imported"]) == (2, LABELS, 3)
    [told] = await kch.told(TrustRegisteredLabels)
    assert (told.labelled, told.labels) == (2, LABELS)
    assert kch.manifest["labels"] == LABELS
    labelled = {case["case"]: case["label"] for case in kch.manifest["cases"]}
    assert labelled[kch.case(unlabelled)] is None
    for scan in scans:
        listed = labelled[kch.case(scan)]
        assert np.array_equal(voxels(kch.folder / listed["path"]), scan.volume.label)
        assert sha256(kch.folder / listed["path"]) == listed["sha256"]
        [segmentation] = [dataset for dataset in await kch.archived(scan) if dataset.Modality == "SEG"]
        assert [word for word in scan.planted if word in str(segmentation)] == []
        assert segmentation.PatientID == kch.key.patient(scan.patient.hospital_number)


@pytest.mark.requirement("IMG-6")
async def test_a_label_that_can_not_be_used_is_named_and_changes_nothing(kch: Trust) -> None:
    mine, other = kch.scan(0), kch.scan(1)
    await kch.fill_pacs(mine, other)
    await kch.freeze(mine, other)
    await kch.ask()
    await kch.imported(mine, other)
    swapped = mine.write_segmentation(kch.scratch / "swapped.dcm")
    shifted = mine.volume.affine.copy()
    shifted[0, 3] += 1
    nib.save(nib.Nifti1Image(mine.volume.label, shifted), kch.scratch / "shifted.nii.gz")
    (kch.scratch / "torn.dcm").write_bytes(swapped.read_bytes()[:3000])
    for file, problem in (
        ("swapped.dcm", "another patient"),
        ("shifted.nii.gz", "grid"),
        ("torn.dcm", ""),
    ):
        answer = await kch.http.post(
            f"/api/imaging/trust/projects/{kch.project_id}/labels",
            files=multipart({other.patient.accession: file}, [kch.scratch / file]),
            data={"labels": json.dumps(LABELS)},
        )
        assert (answer.status_code, answer.json()["code"]) == (422, "labels-not-usable")
        [told] = answer.json()["report"]["problems"]
        assert (told["accession_id"], told["file"]) == (other.patient.accession, file)
        assert problem in told["problem"]
    assert all(case["label"] is None for case in kch.manifest["cases"])
    assert {dataset.Modality for dataset in await kch.archived(other)} == {"MR"}


@pytest.mark.requirement("IMG-6")
async def test_a_label_can_be_replaced_until_training_begins(kch: Trust) -> None:
    scan = kch.scan(2)
    await kch.fill_pacs(scan)
    await kch.freeze(scan)
    await kch.ask()
    await kch.imported(scan)
    assert (await send_labels(kch, scan)).status_code == 200
    first, second = scan.volume.label.copy(), scan.volume.label.copy()
    first[first == 3] = 0
    second[second == 2] = 0

    async def send(label: np.ndarray) -> httpx.Response:
        nib.save(nib.Nifti1Image(label, scan.volume.affine), kch.scratch / "new.nii.gz")
        return await kch.http.post(
            f"/api/imaging/trust/projects/{kch.project_id}/labels",
            files=multipart({scan.patient.accession: "new.nii.gz"}, [kch.scratch / "new.nii.gz"]),
            data={"labels": json.dumps(LABELS)},
        )

    assert (await send(first)).json()["replaced"] == [scan.patient.accession]
    assert np.array_equal(voxels(kch.folder / kch.manifest["cases"][0]["label"]["path"]), first)
    assert {dataset.Modality for dataset in await kch.archived(scan)} == {"MR"}
    await kch.begin_training()
    refused = await send(second)
    assert (refused.status_code, refused.json()["code"]) == (409, "training-has-begun")
    assert np.array_equal(voxels(kch.folder / kch.manifest["cases"][0]["label"]["path"]), first)


@pytest.mark.requirement("IMG-6")
async def test_only_the_trusts_operator_is_let_in(kch: Trust) -> None:
    for authorization in ("", "Bearer operator-of-uclh"):
        answer = await kch.http.get("/api/imaging/trust/projects", headers={"Authorization": authorization})
        assert (answer.status_code, answer.json()["code"]) == (401, "token-not-valid")


@pytest.mark.requirement("IMG-7")
async def test_the_pacs_is_not_asked_while_the_switch_is_off_or_outside_its_hours(alone: Trust) -> None:
    scan = alone.scan(9)
    await alone.fill_pacs(scan)
    await alone.freeze(scan)
    hour = datetime.now().astimezone().hour
    later = {"pull_from_hour": (hour + 12) % 24, "pull_to_hour": (hour + 13) % 24 or 24}
    async with alone.running(**later):
        await alone.ask()
        await alone.reach(**{alone.case(scan): "queued"})
        assert not await Importer(alone.app.state.side).import_one_study()
        assert (await alone.http.put("/api/imaging/trust/pulling", json={"allowed": False})).status_code == 200
    async with alone.running():
        assert (await alone.http.get("/api/imaging/trust/pulling")).json() == {"allowed": False}
        assert not await Importer(alone.app.state.side).import_one_study()
        assert await alone.states() == {alone.case(scan): "queued"}
        await alone.http.put("/api/imaging/trust/pulling", json={"allowed": True})
        await alone.imported(scan)
    assert [event.attempt for event in await alone.told(ImportStarted)] == [1]


@pytest.mark.requirement("IMG-9")
async def test_deleting_a_project_leaves_nothing_of_it_and_tells_the_hub(kch: Trust) -> None:
    scans = [kch.scan(10), kch.scan(11)]
    await kch.fill_pacs(*scans)
    await kch.freeze(*scans)
    await kch.ask()
    await kch.imported(*scans)
    await kch.hub.say(DeleteImages(project_id=kch.project_id), trust="KCH")
    await eventually(lambda: kch.told(TrustDeletedImages))
    assert set((await kch.states()).values()) == {"deleted"}
    assert not kch.folder.exists()
    assert await kch.db.fetchval("SELECT count(*) FROM study_accession WHERE project_id = $1", kch.project_id) == 0
    assert [await kch.has_archived(scan) for scan in scans] == [False, False]
    assert len(await kch.told(StudyImported)) == 2


# --- a ready data set in the place of the studies -----------------------------------------------------------------


async def ready_project(kch: Trust) -> None:
    """Let the hub ask for a project whose cohort has no study yet."""
    await kch.ask()
    await eventually(lambda: kch.told(TrustImagesReady))


@pytest.mark.requirement("NNU-12")
async def test_a_ready_data_set_is_what_the_project_trains_on_and_nobodys_name_comes_along(
    kch: Trust, capfd: pytest.CaptureFixture[str]
) -> None:
    name = f"Dataset123_{kch.mark}"
    ready = make_dataset(kch.offered / name)
    await ready_project(kch)
    dry = await kch.register(name, dry_run=True)
    assert (dry.status_code, dry.json()["problems"]) == (200, [])
    assert await kch.told(DatasetAdopted) == []
    assert not (kch.folder / "datasets").exists()

    report = (await kch.register(name)).json()
    assert report == dry.json() | {"dry_run": False}
    assert (report["channels"], report["labels"]) == (["T1", "FLAIR"], {"core": 1, "oedema": 2})
    assert report["cases_by_label"] == {"core": 3, "oedema": 2}
    assert report["cases"] == {each: kch.key.dataset_case(each) for each in ready.names}
    manifest = kch.manifest
    assert (manifest["channels"], manifest["labels"]) == (report["channels"], report["labels"])
    assert [case["case"] for case in manifest["cases"]] == sorted(report["cases"].values())
    by_case = {case["case"]: case for case in manifest["cases"]}
    for number, original in enumerate(ready.names):
        case = by_case[report["cases"][original]]
        assert case["study"] is None
        for kind, file in enumerate([*case["images"], case["label"]]):
            assert np.array_equal(voxels(kch.folder / file["path"]), voxels_of(number, kind))
            assert sha256(kch.folder / file["path"]) == file["sha256"]

    rows = await kch.db.fetch(
        "SELECT convert_from(payload, 'UTF8') AS body, key, actor FROM event_log WHERE key = $1", str(kch.project_id)
    )
    files = " ".join(str(path.relative_to(kch.settings.data)) for path in kch.settings.data.rglob("*"))
    for place in (str([dict(row) for row in rows]), "".join(capfd.readouterr()), files, json.dumps(manifest)):
        assert "SMITH" not in place


@pytest.mark.requirement("NNU-12")
async def test_the_hub_is_told_once_what_a_data_set_holds(kch: Trust) -> None:
    name = f"Dataset129_{kch.mark}"
    make_dataset(kch.offered / name)
    await ready_project(kch)
    report = (await kch.register(name)).json()
    assert (await kch.register(name)).json() == report
    [event] = await kch.told(DatasetAdopted)
    assert (event.name, event.cases, event.dataset_sha256) == (name, 3, report["sha256"])
    assert event.manifest_sha256 == sha256(kch.folder / "manifest.json")
    [told] = await kch.told(TrustRegisteredDataset)
    assert (told.cases, told.channels, told.dataset_sha256) == (3, ["T1", "FLAIR"], report["sha256"])
    assert [(ready.imported, ready.failed) for ready in await kch.told(TrustImagesReady)] == [(0, 0), (3, 0)]
    assert [(each.labelled, each.labels) for each in await kch.told(TrustRegisteredLabels)] == [(3, report["labels"])]


@pytest.mark.requirement("NNU-12")
async def test_what_stands_in_for_the_studies_is_found_again_by_replay(kch: Trust) -> None:
    first, second = f"Dataset131_{kch.mark}", f"Dataset132_{kch.mark}"
    make_dataset(kch.offered / first)
    make_dataset(kch.offered / second, cases=2)
    await ready_project(kch)
    await kch.register(first)
    await kch.http.delete(kch.dataset)
    await kch.register(second)
    rebuilds = "/api/imaging/operations/rebuilds"
    asked = (await kch.http.post(rebuilds, json={"swap": False})).json()

    async def rebuilt() -> dict[str, Any] | None:
        found = (await kch.http.get(f"{rebuilds}/{asked['rebuild_id']}")).json()
        return found if found["state"] in {"done", "failed"} else None

    found = await eventually(rebuilt, within_s=PATIENCE_S)
    assert found["state"] == "done", found
    [compared] = [each for each in found["tables"] if each["table"] == "dataset"]
    assert compared["standing"] > 0
    assert compared["differing"] == 0


@pytest.mark.requirement("NNU-12")
async def test_studies_wait_behind_a_data_set_until_it_is_given_up(kch: Trust) -> None:
    name, scan = f"Dataset130_{kch.mark}", kch.scan(0)
    make_dataset(kch.offered / name)
    await ready_project(kch)
    await kch.register(name)
    await kch.fill_pacs(scan)
    await kch.freeze(scan)
    told = await kch.told(TrustImportProgressed)
    await kch.ask()
    await kch.reach(**{kch.case(scan): "queued"})
    assert not await Importer(kch.app.state.side).import_one_study()
    assert await kch.told(TrustImportProgressed) == told
    refused = await send_labels(kch, scan)
    assert (refused.status_code, refused.json()["code"]) == (409, "dataset-registered")
    projects = (await kch.http.get("/api/imaging/trust/projects")).json()
    [mine] = [project for project in projects if project["project_id"] == str(kch.project_id)]
    assert (mine["dataset"]["name"], mine["dataset"]["cases"], mine["counts"]["queued"]) == (name, 3, 1)
    assert len(await kch.told(TrustImagesReady)) == 2

    assert (await kch.http.delete(kch.dataset)).status_code == 204
    assert len(await kch.told(DatasetDropped)) == len(await kch.told(TrustWithdrewDataset)) == 1
    assert list((kch.folder / "datasets").iterdir()) == []
    await kch.imported(scan)
    await eventually(lambda: _lists(kch, scan))
    assert len(await eventually(lambda: _ready_again(kch))) == 3
    again = await kch.http.delete(kch.dataset)
    assert (again.status_code, again.json()["code"]) == (404, "dataset-not-registered")


async def _ready_again(kch: Trust) -> list[Any]:
    return (await kch.told(TrustImagesReady)) if len(await kch.told(TrustImagesReady)) > 2 else []


async def _lists(kch: Trust, scan: Scan) -> bool:
    return [case["case"] for case in kch.manifest["cases"]] == [kch.case(scan)]


@pytest.mark.requirement("NNU-12")
async def test_a_data_set_that_can_not_be_used_is_told_in_full_and_changes_nothing(kch: Trust, tmp_path: Path) -> None:
    name = f"Dataset124_{kch.mark}"
    ready = make_dataset(kch.offered / name, cases=101)
    for each in ready.names:
        ready.label(each).unlink()
    await ready_project(kch)
    before = (kch.folder / "manifest.json").read_bytes() if (kch.folder / "manifest.json").exists() else None
    answer = await kch.register(name)
    assert (answer.status_code, answer.json()["code"]) == (422, "dataset-not-usable")
    report = answer.json()["report"]
    assert (len(report["problems"]), report["problems_in_all"], report["sha256"]) == (100, 101, None)
    assert report["problems"][0] == {"file": f"labelsTr/{ready.names[0]}.nii.gz", "problem": "is missing"}
    dry = await kch.register(name, dry_run=True)
    assert (dry.status_code, dry.json()["problems"]) == (200, report["problems"])
    make_dataset(tmp_path / name)
    (kch.offered / f"Dataset125_{kch.mark}").symlink_to(tmp_path / name)
    for other, status, code in (
        (f"Dataset999_{kch.mark}", 404, "dataset-not-found"),
        (f"Dataset125_{kch.mark}", 422, "dataset-not-usable"),
        ("../data", 422, "name-not-valid"),
        ("Brain", 422, "name-not-valid"),
    ):
        answer = await kch.register(other)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
    after = (kch.folder / "manifest.json").read_bytes() if (kch.folder / "manifest.json").exists() else None
    assert before == after
    assert await kch.told(DatasetAdopted) == []
    kch.project_id = ProjectId(uuid7())
    answer = await kch.register(name)
    assert (answer.status_code, answer.json()["code"]) == (404, "project-not-found")


@pytest.mark.requirement("NNU-12")
async def test_a_data_set_can_be_replaced_until_training_begins(kch: Trust) -> None:
    first, second = f"Dataset126_{kch.mark}", f"Dataset127_{kch.mark}"
    make_dataset(kch.offered / first)
    make_dataset(kch.offered / second, cases=2)
    await ready_project(kch)
    one = (await kch.register(first)).json()
    two = (await kch.register(second)).json()
    assert one["sha256"] != two["sha256"]
    assert [folder.name for folder in (kch.folder / "datasets").iterdir()] == [two["sha256"]]
    assert len(kch.manifest["cases"]) == 2
    await kch.begin_training()
    for refused in (await kch.register(first), await kch.register(first, dry_run=True)):
        assert (refused.status_code, refused.json()["code"]) == (409, "training-has-begun")
    refused = await kch.http.delete(kch.dataset)
    assert (refused.status_code, refused.json()["code"]) == (409, "training-has-begun")
    assert (await kch.register(second)).json() == two
    assert len(await kch.told(DatasetAdopted)) == len(await kch.told(TrustRegisteredDataset)) == 2
    assert len(kch.manifest["cases"]) == 2
    await kch.hub.say(DeleteImages(project_id=kch.project_id), trust="KCH")
    await eventually(lambda: kch.told(TrustDeletedImages))
    assert not kch.folder.exists()
    assert await kch.db.fetchval("SELECT count(*) FROM dataset WHERE project_id = $1", kch.project_id) == 0


@pytest.mark.requirement("NNU-12")
async def test_the_start_holds_a_data_sets_list_against_what_was_registered(alone: Trust) -> None:
    name = "Dataset128_Brain"
    make_dataset(alone.offered / name)
    async with alone.running(datasets=None):
        await ready_project(alone)
        answer = await alone.register(name)
        assert (answer.status_code, answer.json()["code"]) == (404, "datasets-not-offered")
    async with alone.running():
        report = (await alone.register(name)).json()
    [told] = await alone.told(TrustRegisteredDataset)
    assert told.cases == "suppressed"
    assert {each.labelled for each in await alone.told(TrustRegisteredLabels)} == {"suppressed"}
    whole = (alone.folder / "manifest.json").read_bytes()
    (alone.folder / "manifest.json").unlink()
    lost = alone.folder / "datasets" / ("0" * 64)  # what a process that was lost in the middle leaves
    lost.mkdir()
    async with alone.running():
        await eventually(lambda: asyncio.to_thread((alone.folder / "manifest.json").exists))
        assert (alone.folder / "manifest.json").read_bytes() == whole
        await eventually(lambda: _is_gone(lost))
    (alone.folder / "datasets" / report["sha256"] / "manifest.json").write_bytes(b"{}")
    async with alone.running():
        await eventually(lambda: _is_gone(alone.folder / "manifest.json"))
        assert (await alone.register(name)).json() == report
        assert (alone.folder / "manifest.json").read_bytes() == whole
    assert [folder.name for folder in (alone.folder / "datasets").iterdir()] == [report["sha256"]]


async def _is_gone(file: Path) -> bool:
    return not await asyncio.to_thread(file.exists)
