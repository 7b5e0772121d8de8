"""Files of a model: uploaded by those who may, scanned by a real ClamAV before anything may use them."""

import asyncio
import json
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any

import httpx
import pytest
from flip_chassis.database import connect
from flip_chassis.ids import uuid7
from flip_chassis.testing import eventually, refused, said
from flip_contracts.apps import object_of_file
from flip_contracts.base import ModelId, ProjectId, UserId
from flip_contracts.files import (
    AppConfiguration,
    ModelFileAccepted,
    ModelFileRefused,
    ModelFileRemoved,
    ModelFileUploaded,
)
from flip_files import domain
from flip_files.findings import Inspection
from flip_local.testing import S3, Clamd, Database, Kafka

from .conftest import Files, files_of

EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
TRAINER = b"import subprocess\nclass FLIP_TRAINER: ...\n"

# --- the verdict, pure ------------------------------------------------------------------------------------------------

UPLOADED = ModelFileUploaded(
    model_id=ModelId(uuid7()),
    project_id=ProjectId(uuid7()),
    path="trainer.py",
    digest="a" * 64,
    size_bytes=9,
    object="uploads/1",
)
MODEL = domain.Model(UPLOADED.model_id, UPLOADED.project_id, "nvflare", "custom")
WAITING = domain.evolve_files(domain.ModelFiles(), UPLOADED)
CLEAN = domain.Scan("ClamAV 1.4.6", "local", None, UPLOADED.digest)


@pytest.mark.requirement("FILE-2")
@pytest.mark.parametrize(
    ("scan", "inspection", "reason"),
    [
        (domain.Scan("e", "s", "Eicar", "a" * 64), Inspection(), "malware-found"),
        (domain.Scan("e", "s", None, "b" * 64), Inspection(), "digest-differs"),
        (CLEAN, Inspection(refused="pickle-unsafe"), "pickle-unsafe"),
        (None, Inspection(), "upload-lost"),
    ],
)
def test_all_that_is_not_clean_and_what_was_uploaded_is_refused(
    scan: domain.Scan | None, inspection: Inspection, reason: str
) -> None:
    verdict = domain.judge_file(UPLOADED, scan, inspection)
    assert isinstance(verdict, ModelFileRefused)
    assert verdict.reason == reason


@pytest.mark.requirement("FILE-2")
def test_a_verdict_counts_once_and_only_for_the_upload_that_it_is_about() -> None:
    assert domain.waits_for(WAITING, UPLOADED)
    accepted = domain.judge_file(UPLOADED, CLEAN, Inspection())
    assert isinstance(accepted, ModelFileAccepted)
    replaced = domain.evolve_files(WAITING, UPLOADED.model_copy(update={"object": "uploads/2"}))
    removed = domain.evolve_files(WAITING, domain.remove(WAITING, MODEL, "trainer.py"))
    for state in (domain.evolve_files(WAITING, accepted), replaced, removed):
        assert not domain.waits_for(state, UPLOADED)


def test_a_model_has_so_many_files_and_one_may_be_replaced_even_then() -> None:
    with refused("too-many-files", most_files=1):
        domain.upload(WAITING, UPLOADED.model_copy(update={"path": "models.py"}), most_files=1)
    assert domain.upload(WAITING, UPLOADED, most_files=1) == UPLOADED


# --- on real parts ----------------------------------------------------------------------------------------------------


class Folder:
    """The files of one model, as its owner works on them."""

    def __init__(self, files: Files, model_id: ModelId) -> None:
        self.files = files
        self.model_id = model_id
        self.url = f"/api/files/models/{model_id}/files"

    async def ask(self, method: str, path: str = "", by: UserId | None = None, **more: Any) -> httpx.Response:
        url = f"{self.url}/{path}" if path else self.url
        headers = self.files.token(by or self.files.owner)
        return await self.files.http.request(method, url, headers=headers, **more)

    async def put(self, path: str, content: bytes | AsyncIterator[bytes]) -> httpx.Response:
        return await self.ask("PUT", path, content=content)

    async def judged(self, path: str) -> dict[str, Any]:
        """The file once its scan has been judged."""

        async def look() -> dict[str, Any] | None:
            listed = (await self.ask("GET")).json()["files"]
            return next((each for each in listed if each["path"] == path and each["status"] != "scanning"), None)

        return await eventually(look, within_s=60)

    async def said(self, type_: type[Any]) -> list[Any]:
        async with connect(self.files.database.app) as db:
            return [event for event in await said(db, type_) if event.model_id == self.model_id]

    def objects(self, prefix: str) -> list[str]:
        found = self.files.store.list_objects(self.files.bucket, prefix, recursive=True)
        return [each.object_name or "" for each in found]


@pytest.mark.parts
@pytest.mark.requirement("FILE-2")
@pytest.mark.requirement("FILE-3")
async def test_files_are_uploaded_scanned_listed_downloaded_replaced_and_removed(files: Files) -> None:
    folder = Folder(files, await files.model())
    empty = (await folder.ask("GET")).json()
    assert empty["required"] == [{"path": "trainer.py", "present": False}, {"path": "validator.py", "present": False}]

    answer = await folder.put("trainer.py", TRAINER)
    assert (answer.status_code, answer.json()["status"]) == (202, "scanning")
    assert answer.headers["Flip-Version"] == f"flip.files.model/{folder.model_id}@1"
    trainer = await folder.judged("trainer.py")
    assert (trainer["status"], trainer["digest"]) == ("accepted", sha256(TRAINER).hexdigest())
    assert trainer["findings"] == [{"line": 1, "name": "subprocess"}]
    await folder.put("lib/__init__.py", b"")
    assert (await folder.judged("lib/__init__.py"))["size_bytes"] == 0
    assert (await folder.ask("GET")).json()["required"][0] == {"path": "trainer.py", "present": True}
    assert (await folder.ask("GET", "trainer.py")).content == TRAINER
    kept = object_of_file(folder.model_id, sha256(TRAINER).hexdigest())
    assert kept in folder.objects(f"models/{folder.model_id}/")

    await folder.put("config.json", json.dumps({"GLOBAL_ROUNDS": 0}).encode())
    assert (await folder.judged("config.json"))["status"] == "accepted"
    await folder.put("config.json", json.dumps({"GLOBAL_ROUNDS": 3}).encode())
    await folder.judged("config.json")
    said_of = {event.digest: event.configuration for event in await folder.said(ModelFileAccepted)}
    [wrong, right] = [each for each in said_of.values() if each is not None]
    assert ([each.field for each in wrong.problems], right) == (["GLOBAL_ROUNDS"], AppConfiguration())

    assert (await folder.ask("DELETE", "config.json")).status_code == 204
    assert (await folder.ask("DELETE", "config.json")).json()["code"] == "file-not-found"
    assert [event.path for event in await folder.said(ModelFileRemoved)] == ["config.json"]
    assert [each["path"] for each in (await folder.ask("GET")).json()["files"]] == ["lib/__init__.py", "trainer.py"]


@pytest.mark.parts
@pytest.mark.requirement("FILE-2")
async def test_what_is_refused_is_deleted_and_says_why(files: Files) -> None:
    folder = Folder(files, await files.model())
    await folder.put("notes.txt", EICAR)
    await folder.put("trainer.py", b"def (")
    notes, trainer = await folder.judged("notes.txt"), await folder.judged("trainer.py")
    assert (notes["status"], notes["reason"]) == ("refused", "malware-found")
    assert (trainer["reason"], trainer["detail"]) == ("python-syntax-error", "Line 1.")
    withheld = (await folder.ask("GET", "notes.txt")).json()
    assert (withheld["code"], withheld["status"]) == ("file-withheld", 409)
    uploads = {event.object for event in await folder.said(ModelFileUploaded)}

    async def gone() -> bool:
        return uploads.isdisjoint(folder.objects("uploads/"))

    await eventually(gone)
    assert folder.objects(f"models/{folder.model_id}/") == []


@pytest.mark.parts
@pytest.mark.requirement("FILE-2")
async def test_a_scanner_that_is_down_means_waiting_and_never_clean(
    postgres: Database, kafka: Kafka, s3: S3, clamd: Clamd
) -> None:
    async with files_of(postgres, kafka, s3, clamd, clamd_port=1) as files:
        folder = Folder(files, await files.model())
        await folder.put("trainer.py", TRAINER)

        async def tried() -> bool:
            async with connect(postgres.app) as db:
                return await db.fetchval("SELECT attempts FROM scan") > 0

        await eventually(tried)
        [waiting] = (await folder.ask("GET")).json()["files"]
        assert waiting["status"] == "scanning"
        assert (await folder.ask("GET", "trainer.py")).json()["code"] == "file-withheld"
        assert folder.objects(f"models/{folder.model_id}/") == []


@pytest.mark.parts
async def test_who_may_not_work_on_the_project_changes_no_file_and_a_stranger_hears_of_none(files: Files) -> None:
    folder = Folder(files, await files.model())
    await folder.put("trainer.py", TRAINER)
    for method, path in (("GET", ""), ("GET", "trainer.py"), ("PUT", "trainer.py"), ("DELETE", "trainer.py")):
        assert (await folder.ask(method, path, by=files.stranger)).json()["code"] == "project-not-found"
    assert (await folder.ask("GET", by=files.viewer)).status_code == 200
    for method in ("PUT", "DELETE"):
        assert (await folder.ask(method, "trainer.py", by=files.viewer)).json()["code"] == "role-not-allowed"


@pytest.mark.parts
@pytest.mark.requirement("FILE-2")
async def test_names_that_lead_elsewhere_and_files_that_are_too_large_are_refused(
    postgres: Database, kafka: Kafka, s3: S3, clamd: Clamd
) -> None:
    async with files_of(postgres, kafka, s3, clamd, most_file_bytes=1000) as files:
        folder = Folder(files, await files.model())
        for name in (".hidden", "a//b.py", "a%2F..%2Fb.py", "a b.py", "%C3%A9.py", "a/" * 8 + "b.py"):
            answer = await folder.put(name, TRAINER)
            assert (answer.status_code, answer.json()["code"]) == (422, "request-not-valid"), name

        async def endless() -> AsyncIterator[bytes]:
            for _ in range(100):
                yield b"x" * 100
                await asyncio.sleep(0)

        for content in (b"x" * 1001, endless()):
            problem = (await folder.put("a.txt", content)).json()
            assert (problem["code"], problem["most_bytes"]) == ("file-too-large", 1000)
        assert (await folder.ask("GET")).json()["files"] == []


@pytest.mark.parts
@pytest.mark.requirement("FILE-3")
async def test_a_model_of_the_platforms_own_job_needs_and_takes_no_file(files: Files) -> None:
    folder = Folder(files, await files.model(job="nnunet"))
    assert (await folder.ask("GET")).json()["required"] == []
    assert (await folder.put("trainer.py", TRAINER)).json()["code"] == "model-takes-no-files"
