"""Real parts for tests: a pytest plugin that starts what a test asks for, when it asks for it.

    async def test_it_is_stored(postgres: Database): ...            # a fresh database; .app and .owner are its DSNs
    async def test_it_is_said(kafka: Kafka):                        # a broker with the catalogue's topics and rights
        client = kafka.as_principal("service.auth")                 # .bootstrap, .certificate, .ca, .ssl_context()
        group = kafka.group("service.audit")                        # a consumer group of its own that it may use

`postgres_server.database()` is a context manager for module-wide fixtures. Topics and records are shared by all tests
on one stack: `kafka.fresh_topics({"flip.projects.project"})` makes copies under new names with the same rights, and
returns what each is called. Other fixtures: `s3`, `orthanc`, `smtp`, `clamd`,
`trust_postgres`; `local_stack.up("records-KCH")` starts any part.

All test runs of a checkout share one stack under `.local/test-stack` (moved by `FLIP_TEST_STATE`, with its ports from
`FLIP_TEST_PORT_BASE`, 28500): the last run to end takes it down, unless `FLIP_TEST_KEEP=1`, which makes the next run
start faster.
"""

from __future__ import annotations

import dataclasses
import fcntl
import os
import signal
import ssl
import sys
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

import pytest

from flip_local.layout import HUB, Layout

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

    from flip_local.parts.postgres import Cluster

_DEFAULT_PORT_BASE = "28500"


# The imports below are made where they are used: the plugin is loaded by every test run, and most need no part.
# ruff: noqa: PLC0415


def pytest_configure(config: pytest.Config) -> None:
    """Have errors logged as Python prints them: with every local beside it, structlog's own way, one takes a second.

    And have a SIGTERM end the run as Ctrl+C does: a service within a test asks its process to stop when it can't go on,
    and what it logged of the reason is shown.
    """
    import structlog

    signal.signal(signal.SIGTERM, lambda _number, _frame: _interrupt(config))
    *processors, _ = structlog.get_config()["processors"]
    renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*processors, renderer])


def _interrupt(config: pytest.Config) -> NoReturn:
    capturing: Any = config.pluginmanager.getplugin("capturemanager")
    if capturing:
        capturing.suspend_global_capture(in_=True)
        sys.stderr.writelines(capturing.read_global_capture())
    raise KeyboardInterrupt


def layout_for_tests() -> Layout:
    """The stack that this checkout's tests use."""
    layout = Layout()
    state = os.environ.get("FLIP_TEST_STATE")
    return dataclasses.replace(
        layout,
        state=Path(state).absolute() if state else layout.checkout / ".local" / "test-stack",
        port_base=int(os.environ.get("FLIP_TEST_PORT_BASE", _DEFAULT_PORT_BASE)),
    )


def layout_beside_tests(name: str, ports_above: int) -> Layout:
    """Another stack beside that of the tests, called `name`: its parts are nobody else's to shut down or to kill."""
    layout = layout_for_tests()
    return dataclasses.replace(layout, state=layout.state.with_name(name), port_base=layout.port_base + ports_above)


class LocalStack:
    """A stack of real parts, started as far as tests need it."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def up(self, *parts: str) -> Layout:
        """Have these parts, and all that they need, ready; the layout that says where they are."""
        from flip_local import control

        control.up(self.layout, parts)
        return self.layout


@pytest.fixture(scope="session")
def local_stack() -> Iterator[LocalStack]:
    """The stack of this test run, empty until parts are asked for."""
    layout = layout_for_tests()
    layout.state.mkdir(parents=True, exist_ok=True)
    with (layout.state / "users.lock").open("w") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        yield LocalStack(layout)
        if os.environ.get("FLIP_TEST_KEEP") != "1" and _is_last(users):
            from flip_local import control

            control.down(layout)


def _is_last(users: IO[str]) -> bool:
    """Whether no other test run uses the stack."""
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


# --- Postgres -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Database:
    """A database of its own; `owner` and `app` are DSNs of its two roles, as a service has them."""

    name: str
    owner: str
    app: str


class PostgresServer:
    """Makes databases that live as long as a test, a module or a run."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    @contextmanager
    def database(self, prefix: str = "test") -> Iterator[Database]:
        """A fresh database, its owner, and an app role that may connect and use schema public; dropped afterwards."""
        name = f"{prefix}_{uuid.uuid4().hex[:12]}"
        owner = f"{name}_owner"
        for role in (owner, name):
            self.cluster.create_role(role)
        self.cluster.create_database(name, owner, name)
        try:
            yield Database(name, self.cluster.dsn(name, owner), self.cluster.dsn(name, name))
        finally:
            self.cluster.drop_database(name, owner, name)
            for role in (owner, name):
                self.cluster.credentials.file(f"postgres-{self.cluster.name}-{role}").unlink()


@pytest.fixture(scope="session")
def postgres_server(local_stack: LocalStack) -> PostgresServer:
    """The hub's Postgres, for fixtures that need a database longer than one test."""
    from flip_local.parts.postgres import Cluster

    return PostgresServer(Cluster.of(local_stack.up("postgres-hub"), HUB))


@pytest.fixture
def postgres(postgres_server: PostgresServer) -> Iterator[Database]:
    """A fresh database for one test."""
    with postgres_server.database() as database:
        yield database


# --- Kafka ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class KafkaClient:
    """What a client needs to speak as one principal."""

    bootstrap: str
    certificate: Path
    ca: Path

    def ssl_context(self) -> ssl.SSLContext:
        """For aiokafka and FastStream."""
        context = ssl.create_default_context(cafile=self.ca)
        context.load_cert_chain(self.certificate)
        return context


class Kafka:
    """A broker with TLS and rights as in production, and the catalogue's topics."""

    def __init__(self, layout: Layout, admin: AdminClient) -> None:
        self.layout = layout
        self.admin = admin
        """A super user's confluent-kafka client."""
        self._copies: list[str] = []

    def as_principal(self, principal: str) -> KafkaClient:
        """The identity of `service.<name>`, `trust.<CODE>` or `admin.hub`."""
        return KafkaClient(self.layout.kafka, self.layout.certificate(principal), self.layout.ca)

    def group(self, principal: str) -> str:
        """The name of a new consumer group that the principal may use."""
        from flip_contracts.catalogue import group_prefix

        return f"{group_prefix(principal)}{uuid.uuid4().hex[:12]}"

    def fresh_topics(self, names: Iterable[str]) -> dict[str, str]:
        """Empty copies of catalogue topics with the same partitions and rights: each topic's name -> its copy's."""
        from flip_contracts.catalogue import topics

        from flip_local.parts.topics import apply

        mark = uuid.uuid4().hex[:12]
        catalogue = {topic.name: topic for topic in topics(self.layout.trusts)}
        copies = {name: dataclasses.replace(catalogue[name], name=f"{name}.{mark}") for name in names}
        apply(self.admin, copies.values())
        self._copies += [copy.name for copy in copies.values()]
        return {name: copy.name for name, copy in copies.items()}

    def allow_records_of(self, topic: str, size_bytes: int) -> None:
        """Let a topic take larger records than the broker usually does."""
        from confluent_kafka.admin import (
            AlterConfigOpType,  # pyright: ignore[reportPrivateImportUsage]
            ConfigEntry,  # pyright: ignore[reportPrivateImportUsage]
            ConfigResource,  # pyright: ignore[reportPrivateImportUsage]
            ResourceType,  # pyright: ignore[reportPrivateImportUsage]
        )

        largest = ConfigEntry("max.message.bytes", str(size_bytes), incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[largest])
        for altered in self.admin.incremental_alter_configs([resource]).values():
            altered.result()

    def remove_copies(self) -> None:
        """Delete what `fresh_topics` has made."""
        from flip_local.parts.topics import remove

        if self._copies:
            remove(self.admin, self._copies)
            self._copies.clear()


@pytest.fixture(scope="session")
def kafka(local_stack: LocalStack) -> Iterator[Kafka]:
    """A broker with the topics and rights of today's catalogue."""
    from confluent_kafka.admin import AdminClient
    from flip_contracts.catalogue import topics

    from flip_local import pki
    from flip_local.parts.topics import apply, client_settings

    layout = local_stack.up("kafka")
    admin = AdminClient(client_settings(layout, pki.ADMIN))
    # Not by the stack's own task, which a stack left running has done with yesterday's catalogue.
    apply(admin, topics(layout.trusts))
    server = Kafka(layout, admin)
    yield server
    server.remove_copies()


# --- what else a service stands on ----------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class S3:
    """The object store. The bucket is shared by all tests: use keys of your own."""

    endpoint: str
    access_key: str
    secret_key: str
    bucket: str


@pytest.fixture(scope="session")
def s3(local_stack: LocalStack) -> S3:
    """The object store and its bucket."""
    from flip_local.credentials import Credentials
    from flip_local.parts.s3 import BUCKET

    layout = local_stack.up("s3")
    return S3(layout.url("s3"), *Credentials(layout).s3, BUCKET)


@dataclass(frozen=True, slots=True)
class Orthanc:
    """A PACS or an archive: `url` is the server's root, its DICOMweb is under `/dicom-web`."""

    url: str
    user: str
    password: str
    host: str
    dicom_port: int
    title: str

    @property
    def dicom_web(self) -> str:
        return f"{self.url}/dicom-web"

    def clear(self) -> None:
        """Remove every patient."""
        import httpx

        with httpx.Client(base_url=self.url, auth=(self.user, self.password), timeout=60, trust_env=False) as client:
            for patient in client.get("/patients").raise_for_status().json():
                client.delete(f"/patients/{patient}").raise_for_status()


@dataclass(frozen=True, slots=True)
class TrustImages:
    """A Trust's two image servers, and the title and port under which its importer calls and is called."""

    pacs: Orthanc
    archive: Orthanc
    importer_title: str
    importer_port: int


@pytest.fixture(scope="session")
def orthanc(local_stack: LocalStack) -> TrustImages:
    """PACS and archive of KCH, without any image but those that tests bring; `clear()` empties one."""
    from flip_local.credentials import Credentials
    from flip_local.parts.orthanc import Server, importer_title, title

    trust = "KCH"
    layout = local_stack.up(f"pacs-{trust}", f"archive-{trust}")

    def server(name: Server) -> Orthanc:
        user, password = Credentials(layout).orthanc(name, trust)
        port = layout.port(f"{name}-dicom-{trust}")
        return Orthanc(layout.url(f"{name}-{trust}"), user, password, "127.0.0.1", port, title(name, trust))

    return TrustImages(server("pacs"), server("archive"), importer_title(trust), layout.port(f"importer-dicom-{trust}"))


@dataclass(frozen=True, slots=True)
class Smtp:
    """The mail sink."""

    host: str
    port: int
    mails_url: str

    def mails(self, to: str) -> list[dict[str, Any]]:
        """The mails sent to an address, oldest first: `from`, `to`, `subject`, `body`, `received`."""
        import httpx

        mails = httpx.get(self.mails_url, timeout=10, trust_env=False).raise_for_status().json()
        return [mail for mail in mails if to in mail["to"]]


@pytest.fixture(scope="session")
def smtp(local_stack: LocalStack) -> Smtp:
    """The mail sink. Send to an address of your own: it is shared by all tests."""
    layout = local_stack.up("smtp")
    return Smtp("127.0.0.1", layout.port("smtp"), layout.url("smtp-mails"))


@dataclass(frozen=True, slots=True)
class Clamd:
    """The scanner; it knows the EICAR test string and nothing else."""

    host: str
    port: int


@pytest.fixture(scope="session")
def clamd(local_stack: LocalStack) -> Clamd:
    """The scanner."""
    return Clamd("127.0.0.1", local_stack.up("clamd").port("clamd"))


@pytest.fixture(scope="session")
def trust_postgres(local_stack: LocalStack) -> PostgresServer:
    """KCH's Postgres with its databases, `omop` among them; `.cluster` gives DSNs and makes further databases."""
    from flip_local.parts.postgres import Cluster

    return PostgresServer(Cluster.of(local_stack.up("databases-KCH"), "KCH"))
