"""The files service on real parts, and who is known to it."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from flip_chassis.ids import uuid7
from flip_chassis.testing import People, client, eventually, invited, settings_for, speaking
from flip_contracts.auth import Role
from flip_contracts.base import ModelId, ProjectId, UserId
from flip_contracts.projects import Framework, Job, ModelCreated, ProjectCreated
from flip_files.main import service
from flip_files.settings import FilesSettings
from flip_local.testing import S3, Clamd, Database, Kafka
from minio import Minio


@dataclass
class Files:
    """The service, and who is known to it."""

    http: httpx.AsyncClient
    database: Database
    people: People
    kafka: Kafka
    store: Minio
    bucket: str
    owner: UserId
    viewer: UserId
    stranger: UserId
    project_id: ProjectId

    def token(self, user_id: UserId) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.people.token(user_id)}"}

    async def model(self, framework: Framework = "nvflare", job: Job = "custom") -> ModelId:
        """A model of the project, which the service has heard of."""
        model_id = ModelId(uuid7())
        async with speaking(self.kafka.as_principal("service.projects"), "flip/hub/projects") as projects:
            await projects.say(
                ModelCreated(
                    model_id=model_id,
                    project_id=self.project_id,
                    name="m",
                    description="",
                    framework=framework,
                    job=job,
                )
            )

        async def heard() -> bool:
            url = f"/api/files/models/{model_id}/files"
            return (await self.http.get(url, headers=self.token(self.owner))).status_code == httpx.codes.OK

        await eventually(heard)
        return model_id


@asynccontextmanager
async def files_of(postgres: Database, kafka: Kafka, s3: S3, clamd: Clamd, **changes: Any) -> AsyncGenerator[Files]:
    """The service with these settings."""
    people = People()
    with people.published() as jwks_url:
        given = {
            "s3_endpoint": s3.endpoint,
            "s3_access_key": s3.access_key,
            "s3_secret_key": s3.secret_key,
            "s3_bucket": s3.bucket,
            "clamd_host": clamd.host,
            "clamd_port": clamd.port,
        }
        principal, group = kafka.as_principal("service.files"), kafka.group("service.files")
        settings = settings_for(FilesSettings, postgres, principal, group, jwks_url, **given | changes)
        store = Minio(s3.endpoint.removeprefix("http://"), s3.access_key, s3.secret_key, secure=False)
        owner, viewer, stranger = [await _enter(kafka, role) for role in ("researcher", "viewer", "researcher")]
        project_id = ProjectId(uuid7())
        async with speaking(kafka.as_principal("service.projects"), "flip/hub/projects") as projects:
            await projects.say(
                ProjectCreated(
                    project_id=project_id,
                    owner=owner,
                    name="Deep nuclei",
                    description="",
                    members=frozenset({viewer}),
                )
            )
        async with client(service(settings)) as http:
            yield Files(http, postgres, people, kafka, store, s3.bucket, owner, viewer, stranger, project_id)


@pytest.fixture
async def files(postgres: Database, kafka: Kafka, s3: S3, clamd: Clamd) -> AsyncGenerator[Files]:
    async with files_of(postgres, kafka, s3, clamd) as it:
        yield it


async def _enter(kafka: Kafka, role: Role) -> UserId:
    async with speaking(kafka.as_principal("service.auth"), "flip/hub/auth") as auth:
        arrived, activated = invited(role, f"{uuid7()}@flip.example")
        await auth.say(arrived)
        await auth.say(activated)
    return arrived.user_id
