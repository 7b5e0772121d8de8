"""The parts that other packages' tests rely on."""

import asyncio
import io
import smtplib
import ssl
import struct
import uuid
import zipfile
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path

import aiokafka
import httpx
import minio
import psycopg
import pytest
from aiokafka.errors import GroupAuthorizationFailedError, TopicAuthorizationFailedError
from flip_contracts.catalogue import Topic
from flip_local import stack
from flip_local.parts.postgres import OMOP, OMOP_READER, Cluster
from flip_local.parts.topics import apply
from flip_local.testing import S3, Clamd, Database, Kafka, LocalStack, Orthanc, Smtp, TrustImages
from psycopg import sql
from pydicom import Dataset
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid
from pynetdicom import AE
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,  # pyright: ignore[reportAttributeAccessIssue] (made at import)
    StudyRootQueryRetrieveInformationModelMove,  # pyright: ignore[reportAttributeAccessIssue]
)

pytestmark = pytest.mark.parts


def test_the_app_role_has_no_right_that_its_owner_has_not_granted(postgres: Database):
    with psycopg.connect(postgres.owner) as owner:
        owner.execute("CREATE TABLE secret (id int)")
    with psycopg.connect(postgres.app) as app, pytest.raises(psycopg.errors.InsufficientPrivilege):
        app.execute("SELECT * FROM secret")
    with psycopg.connect(postgres.app) as app, pytest.raises(psycopg.errors.InsufficientPrivilege):
        app.execute("CREATE TABLE mine (id int)")
    with psycopg.connect(postgres.owner) as owner:
        owner.execute(sql.SQL("GRANT SELECT ON secret TO {}").format(sql.Identifier(postgres.name)))
    with psycopg.connect(postgres.app) as app:
        assert app.execute("SELECT * FROM secret").fetchall() == []


def producer(kafka: Kafka, principal: str) -> aiokafka.AIOKafkaProducer:
    client = kafka.as_principal(principal)
    return aiokafka.AIOKafkaProducer(
        bootstrap_servers=client.bootstrap,
        security_protocol="SSL",
        ssl_context=client.ssl_context(),
        acks="all",
        enable_idempotence=True,
    )


async def read_one(kafka: Kafka, principal: str, topic: str, group: str) -> bytes | None:
    client = kafka.as_principal(principal)
    consumer = aiokafka.AIOKafkaConsumer(
        topic,
        bootstrap_servers=client.bootstrap,
        security_protocol="SSL",
        ssl_context=client.ssl_context(),
        group_id=group,
        auto_offset_reset="earliest",
    )
    try:
        await consumer.start()
        return (await asyncio.wait_for(consumer.getone(), 30)).value
    finally:
        await consumer.stop()


async def test_a_trust_writes_its_own_reports_and_no_other_trusts(kafka: Kafka):
    topics = kafka.fresh_topics(["flip.trust.KCH.reports", "flip.trust.UCLH.reports"])
    async with producer(kafka, "trust.KCH") as kch:
        await kch.send_and_wait(topics["flip.trust.KCH.reports"], b"mine", key=b"run")
        with pytest.raises(TopicAuthorizationFailedError):
            await kch.send_and_wait(topics["flip.trust.UCLH.reports"], b"not mine")
        await kch.send_and_wait(topics["flip.trust.KCH.reports"], b"still works", key=b"run")
    own = topics["flip.trust.KCH.reports"]
    assert await read_one(kafka, "service.audit", own, kafka.group("service.audit")) == b"mine"


async def test_a_trust_reads_its_own_commands_in_its_own_groups_only(kafka: Kafka):
    topics = kafka.fresh_topics(["flip.trust.KCH.commands", "flip.trust.UCLH.commands"])
    with pytest.raises(TopicAuthorizationFailedError):
        await read_one(kafka, "trust.KCH", topics["flip.trust.UCLH.commands"], kafka.group("trust.KCH"))
    with pytest.raises(GroupAuthorizationFailedError):
        await read_one(kafka, "trust.KCH", topics["flip.trust.KCH.commands"], kafka.group("trust.UCLH"))


async def test_a_service_may_not_write_another_services_topic(kafka: Kafka):
    topics = kafka.fresh_topics(["flip.projects.project"])
    async with producer(kafka, "service.files") as files:
        with pytest.raises(TopicAuthorizationFailedError):
            await files.send_and_wait(topics["flip.projects.project"], b"forged")


def listening_addresses(port: int) -> set[str]:
    """The addresses, in the kernel's hexadecimal, on which someone listens on a port."""
    rows = [row.split() for table in ("tcp", "tcp6") for row in Path("/proc/net", table).read_text().splitlines()[1:]]
    found = [row[1].split(":") for row in rows if row[3] == "0A"]
    return {address for address, at in found if int(at, 16) == port}


def test_every_part_listens_on_the_loopback_address_only(local_stack: LocalStack):
    parts = stack.parts(local_stack.layout)
    servers = [part for part in parts.values() if part.group == "parts" and part.ports]
    local_stack.up(*(part.name for part in servers))
    loopback = {"0100007F", "0000000000000000FFFF00000100007F"}
    for part in servers:
        for port in part.ports:
            addresses = listening_addresses(port)
            assert addresses, f"{part.name} doesn't listen on {port}"
            assert addresses <= loopback, f"{part.name} listens on {addresses}"


def test_a_topic_that_exists_with_other_partitions_is_refused_and_left_alone(kafka: Kafka):
    [copy] = kafka.fresh_topics(["flip.projects.project"]).values()
    with pytest.raises(ValueError, match=copy):
        apply(kafka.admin, [Topic(copy, 7, None, frozenset(), frozenset())])
    assert len(kafka.admin.list_topics(copy, timeout=10).topics[copy].partitions) != 7


@pytest.fixture(scope="session")
def store(s3: S3) -> minio.Minio:
    host = s3.endpoint.removeprefix("http://")
    return minio.Minio(host, s3.access_key, s3.secret_key, secure=False)


def test_an_object_comes_back_by_presigned_address_and_only_by_one(s3: S3, store: minio.Minio):
    key = f"tests/{uuid.uuid4()}"
    httpx.put(store.presigned_put_object(s3.bucket, key), content=b"weights").raise_for_status()
    assert httpx.get(store.presigned_get_object(s3.bucket, key)).content == b"weights"
    assert httpx.get(f"{s3.endpoint}/{s3.bucket}/{key}").status_code == 403
    store.remove_object(s3.bucket, key)


# In two halves: a scanner on this machine must not take this file for what it looks for.
EICAR = b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$" + b"EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"


async def scan(clamd: Clamd, content: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(clamd.host, clamd.port)
    writer.write(b"zINSTREAM\0" + struct.pack(">I", len(content)) + content + struct.pack(">I", 0))
    answer = await reader.readuntil(b"\0")
    writer.close()
    return answer


async def test_the_scanner_finds_the_test_string_inside_an_archive(clamd: Clamd):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as members:
        members.writestr("data.pkl", b"\0" * 10_000)
        members.writestr("extra", EICAR)
    assert (await scan(clamd, archive.getvalue())).rstrip(b"\0").endswith(b"FOUND")
    assert (await scan(clamd, b"nothing bad")) == b"stream: OK\0"


def test_a_mail_is_shown_as_it_was_written(smtp: Smtp):
    to = f"{uuid.uuid4()}@flip.example"
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "flip@flip.example", to, "Invitation to the café"
    mail.set_content(f"https://localhost/?token={'a' * 90}\n.\n")
    with smtplib.SMTP(smtp.host, smtp.port) as client:
        client.send_message(mail)
    [shown] = smtp.mails(to)
    assert (shown["subject"], shown["body"]) == ("Invitation to the café", f"https://localhost/?token={'a' * 90}\n.\n")


def find(server: Orthanc, calling: str) -> list[Dataset]:
    """Every study that the server shows to a caller of this title; pynetdicom's association is None if refused."""
    entity = AE(ae_title=calling)
    entity.add_requested_context(StudyRootQueryRetrieveInformationModelFind)
    association = entity.associate(server.host, server.dicom_port, ae_title=server.title)
    assert association.is_established
    query = Dataset()
    query.QueryRetrieveLevel, query.StudyInstanceUID = "STUDY", ""
    try:
        answers = list(association.send_c_find(query, StudyRootQueryRetrieveInformationModelFind))
    finally:
        association.release()
    if not all("Status" in status for status, _ in answers) or association.is_aborted:
        raise ConnectionAbortedError
    return [study for _, study in answers if study is not None]


def test_the_pacs_answers_its_importer_and_no_stranger(orthanc: TrustImages):
    orthanc.pacs.clear()
    image = an_image()
    store_over_http(orthanc.pacs, image)
    [study] = find(orthanc.pacs, orthanc.importer_title)
    assert study.StudyInstanceUID == image.StudyInstanceUID
    with pytest.raises(ConnectionAbortedError):
        find(orthanc.pacs, "STRANGER")
    assert httpx.get(f"{orthanc.pacs.dicom_web}/studies").status_code == 401


def test_a_study_moves_from_the_pacs_to_the_archive(orthanc: TrustImages):
    orthanc.pacs.clear()
    orthanc.archive.clear()
    image = an_image()
    store_over_http(orthanc.pacs, image)
    entity = AE(ae_title=orthanc.importer_title)
    entity.add_requested_context(StudyRootQueryRetrieveInformationModelMove)
    association = entity.associate(orthanc.pacs.host, orthanc.pacs.dicom_port, ae_title=orthanc.pacs.title)
    what = Dataset()
    what.QueryRetrieveLevel, what.StudyInstanceUID = "STUDY", image.StudyInstanceUID
    moves = association.send_c_move(what, orthanc.archive.title, StudyRootQueryRetrieveInformationModelMove)
    statuses = [status.Status for status, _ in moves]
    association.release()
    assert statuses[-1] == 0
    [study] = find(orthanc.archive, orthanc.importer_title)
    assert study.StudyInstanceUID == image.StudyInstanceUID


def an_image() -> FileDataset:
    """A DICOM object as small as a server takes it."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    image = FileDataset("image.dcm", {}, file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID, image.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    image.StudyInstanceUID, image.SeriesInstanceUID = generate_uid(), generate_uid()
    image.PatientID, image.Modality = "P1", "OT"
    return image


def store_over_http(server: Orthanc, image: FileDataset) -> None:
    content = io.BytesIO()
    image.save_as(content, enforce_file_format=True)
    auth = (server.user, server.password)
    httpx.post(f"{server.url}/instances", content=content.getvalue(), auth=auth).raise_for_status()


@pytest.fixture
def gateway(local_stack: LocalStack) -> Iterator[httpx.Client]:
    layout = local_stack.up("gateway")
    context = ssl.create_default_context(cafile=layout.ca)
    with httpx.Client(base_url=layout.gateway_url, verify=context) as client:
        yield client


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/nowhere", b"", 404, "no-such-page"),
        ("GET", "/api/projects/all", b"", 502, "service-unavailable"),
        ("POST", "/api/projects/all", b"x" * 2_000_000, 413, "body-too-large"),
    ],
)
@pytest.mark.requirement("GATE-1")
def test_the_gateways_own_refusals_are_problem_documents(
    gateway: httpx.Client, method: str, path: str, body: bytes, status: int, code: str
):
    answer = gateway.request(method, path, content=body)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    problem = answer.json()
    assert (problem["code"], problem["status"]) == (code, status)
    assert problem["instance"] == f"urn:uuid:{answer.headers['x-request-id']}"


@pytest.mark.requirement("GATE-2")
async def test_events_pass_the_gateway_when_they_are_sent_with_the_path_as_it_was(local_stack: LocalStack):
    layout = local_stack.up("gateway")
    second_wanted = asyncio.Event()
    requests: list[str] = []

    async def service(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\ndata: 1\n\n")
        await writer.drain()
        await second_wanted.wait()
        writer.write(b"data: 2\n\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(service, "127.0.0.1", layout.port("audit")):
        context = ssl.create_default_context(cafile=layout.ca)
        async with (
            httpx.AsyncClient(base_url=layout.gateway_url, verify=context, timeout=30) as client,
            client.stream("GET", "/api/audit/live?after=7") as answer,
        ):
            chunks = answer.aiter_text()
            assert await anext(chunks) == "data: 1\n\n"
            second_wanted.set()
            assert await anext(chunks) == "data: 2\n\n"
    [request] = requests
    assert request.startswith("GET /api/audit/live?after=7 HTTP/1.1")
    assert f"x-request-id: {answer.headers['x-request-id']}" in request.lower()


@pytest.mark.requirement("COHORT-2")
def test_the_cohort_reader_may_write_nothing_to_the_hospitals_records(local_stack: LocalStack):
    layout = local_stack.up("databases-KCH")
    with psycopg.connect(Cluster.of(layout, "KCH").dsn(OMOP, OMOP_READER), autocommit=True) as reader:
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            reader.execute("CREATE TABLE mine (id int)")
        reader.execute("SET default_transaction_read_only = off")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            reader.execute("CREATE TABLE mine (id int)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            reader.execute("CREATE TEMPORARY TABLE mine (id int)")
