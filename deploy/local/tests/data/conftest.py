"""The made files of both Trusts, empty OMOP databases and an empty Orthanc: all real."""

import json
import os
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from flip_local.data.source import templates as find_templates
from flip_local.data.studies import Made, make
from flip_local.layout import Layout
from flip_local.parts.postgres import OMOP, OMOP_READER, Cluster, owner_role
from flip_local.testing import LocalStack

DEADLINE_S = 60


@pytest.fixture(scope="session")
def templates() -> Path:
    return find_templates(Layout.from_environment().downloads)


@pytest.fixture(scope="session")
def made(templates: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    cache = tmp_path_factory.mktemp("synthetic-data")
    return {trust: make(trust, templates, cache) for trust in ("KCH", "UCLH")}


class OmopDatabases:
    """Empty OMOP databases in a Trust's own cluster, with the roles and settings that the local stack gives it."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._made: list[str] = []

    def new(self) -> str:
        name = f"omop_{uuid.uuid4().hex[:12]}"
        self._cluster.create_database(name, owner_role(OMOP), OMOP_READER)
        self._made.append(name)
        return name

    def owner(self, name: str) -> str:
        return self._cluster.dsn(name, owner_role(OMOP))

    def reader(self, name: str) -> str:
        return self._cluster.dsn(name, OMOP_READER)

    def drop(self) -> None:
        for name in self._made:
            self._cluster.drop_database(name)


@pytest.fixture(scope="session")
def omop_databases(local_stack: LocalStack) -> Iterator[OmopDatabases]:
    databases = OmopDatabases(Cluster.of(local_stack.up("databases-KCH"), "KCH"))
    yield databases
    databases.drop()


@dataclass(frozen=True)
class Orthanc:
    """An empty PACS."""

    url: str
    user: str = "flip"
    password: str = "only-for-this-test"

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", auth=(self.user, self.password)).raise_for_status()

    def delete(self, path: str) -> None:
        httpx.delete(f"{self.url}{path}", auth=(self.user, self.password)).raise_for_status()

    def find(self, keyword: str, value: str) -> list[str]:
        """Orthanc's ids of the instances with this value."""
        query = {"Level": "Instance", "Query": {keyword: value}}
        found = httpx.post(f"{self.url}/tools/find", json=query, auth=(self.user, self.password))
        return found.raise_for_status().json()

    def accessions(self) -> list[str]:
        studies = self.get("/studies?expand").json()
        return sorted(study["MainDicomTags"]["AccessionNumber"] for study in studies)


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    pacs = Orthanc(f"http://127.0.0.1:{free_port()}")
    configuration = tmp_path / "orthanc.json"
    configuration.write_text(
        json.dumps(
            {
                "StorageDirectory": str(tmp_path),
                "IndexDirectory": str(tmp_path),
                "Plugins": ["/usr/share/orthanc/plugins/libOrthancDicomWeb.so"],
                "HttpPort": int(pacs.url.rpartition(":")[2]),
                "RemoteAccessAllowed": False,
                "AuthenticationEnabled": True,
                "RegisteredUsers": {pacs.user: pacs.password},
                "DicomServerEnabled": False,
            }
        )
    )
    with (tmp_path / "orthanc.log").open("wb") as log:
        process = subprocess.Popen(
            ("Orthanc", str(configuration)), stdout=log, stderr=log, env={**os.environ, "TCP_NODELAY": "1"}
        )
    try:
        wait_until_up(pacs, process)
        yield pacs
    finally:
        process.terminate()
        process.wait(DEADLINE_S)


def wait_until_up(pacs: Orthanc, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            pacs.get("/system")
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"Orthanc did not start; exit status {process.poll()}")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]
