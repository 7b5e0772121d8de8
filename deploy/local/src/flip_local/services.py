"""FLIP's own services: what each is told by its environment, and what it comes after."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from flip_local.credentials import Credentials
from flip_local.layout import HUB, Layout, Net
from flip_local.part import HttpProbe, Part
from flip_local.parts import kits, orthanc, s3
from flip_local.parts.postgres import (
    FROZEN_COHORT_READER,
    OMOP,
    OMOP_READER,
    Cluster,
    app_role,
    net_database,
    owner_role,
)

BOOTSTRAP_EMAIL = "admin@flip.example"

SMALL_MACHINE = {
    "name": "demo",
    "base_features": 16,
    "max_features": 64,
    "max_batch_size": 12,
    "iterations_per_epoch": 60,
    "validation_iterations": 3,
    "threads": 1,
    "augmentation_processes": 0,
    "intensity_voxels": 1_000_000,
}
"""The nets' compute profile: twenty rounds over both Trusts in a few minutes on two cores without a GPU."""

PATIENCE = {"factor": 10, "least_s": 120}
"""How long a Trust that does not answer is waited for: rounds take seconds here."""

Environment = Mapping[str, str]


def parts(layout: Layout) -> list[Part]:
    """Every service at the hub and at each Trust."""
    at_trusts = [service for trust in layout.trusts for service in _trust_services(layout, trust)]
    return [*_hub_services(layout), *at_trusts]


def _hub_services(layout: Layout) -> list[Part]:
    hub = {"FLIP_TRUSTS": json.dumps(layout.trusts)}
    as_hub = {**hub, "FLIP_ROLE": HUB}
    own: Mapping[str, tuple[Environment, tuple[str, ...]]] = {
        "auth": ({**hub, **_auth(layout)}, ("smtp",)),
        "projects": (hub, ()),
        "cohort": (as_hub, ()),
        "imaging": (as_hub, ()),
        "files": ({**hub, **_object_store(layout), **_scanner(layout)}, ("s3", "clamd")),
        "scheduler": (hub, ()),
        "audit": ({**hub, **_object_store(layout), **_ledger(layout)}, ("s3",)),
    }
    services = [_service(layout, name, HUB, name, *of) for name, of in own.items()]
    for net in layout.nets:
        environment = {**hub, **_object_store(layout), **_controller(layout, net)}
        services.append(_net_service(layout, net, net.name, HUB, environment, ("s3",)))
    return services


def _trust_services(layout: Layout, trust: str) -> list[Part]:
    at_trust = {
        "FLIP_TRUST": trust,
        "FLIP_DATA": str(layout.data(trust)),
        "FLIP_OPERATOR_TOKEN_FILE": str(Credentials(layout).operator_token_file(trust)),
    }
    cohort = {**at_trust, "FLIP_ROLE": "trust", "FLIP_OMOP": Cluster.of(layout, trust).dsn(OMOP, OMOP_READER)}
    imaging = {**at_trust, "FLIP_ROLE": "trust", **_frozen_cohort(layout, trust), **_images(layout, trust)}
    pacs = (f"pacs-{trust}", f"archive-{trust}")
    services = [
        _service(layout, f"cohort-{trust}", trust, "cohort", cohort, ()),
        _service(layout, f"imaging-{trust}", trust, "imaging", imaging, (f"cohort-{trust}", *pacs)),
    ]
    for net in layout.nets:
        worker = {**at_trust, **_frozen_cohort(layout, trust), **_worker(layout, net, trust)}
        services.append(_net_service(layout, net, f"{net.name}-{trust}", trust, worker, (f"cohort-{trust}",)))
    return services


def _net_service(layout: Layout, net: Net, name: str, owner: str, own: Environment, after: tuple[str, ...]) -> Part:
    """A net's controller or one of its workers; each net has databases of its own."""
    after = (*after, kits.task_name(net))
    part = _service(layout, name, owner, "trainer-node", own, after, net_database(net))
    return replace(part, on_request=net.on_request)


def _service(
    layout: Layout,
    name: str,
    owner: str,
    service: str,
    own: Environment,
    after: tuple[str, ...],
    database: str | None = None,
) -> Part:
    """One process of `service`, for the hub or for a Trust (`owner`), called `name`.

    Its database is called like the service where none is named.
    """
    database = database or service
    cluster = Cluster.of(layout, owner)
    port = layout.port(name)
    principal = f"service.{service}" if owner == HUB else f"trust.{owner}"
    common = {
        "FLIP_HOST": "127.0.0.1",
        "FLIP_PORT": str(port),
        "FLIP_POSTGRES": cluster.dsn(database, app_role(database)),
        "FLIP_POSTGRES_OWNER": cluster.dsn(database, owner_role(database)),
        "FLIP_KAFKA": layout.kafka,
        "FLIP_KAFKA_CERTIFICATE": str(layout.certificate(principal)),
        "FLIP_KAFKA_CA": str(layout.ca),
        "FLIP_JWKS_URL": f"{layout.url('auth')}/api/auth/jwks.json",
        "FLIP_GATEWAY_URL": layout.gateway_url,
    }
    return Part(
        name=name,
        group="services",
        command=(str(Path(sys.executable).with_name(f"flip-{service}")),),
        ready=HttpProbe(f"{layout.url(name)}/health/ready"),
        after=(f"databases-{owner}", "topics", *after),
        ports=(port,),
        environment={**common, **own},
        folders=(layout.data(owner), layout.datasets(owner)) if owner != HUB else (),
        stop_s=20,
    )


def _auth(layout: Layout) -> Environment:
    return {
        "FLIP_SMTP_HOST": "127.0.0.1",
        "FLIP_SMTP_PORT": str(layout.port("smtp")),
        "FLIP_BOOTSTRAP_EMAIL": BOOTSTRAP_EMAIL,
        "FLIP_BOOTSTRAP_PASSWORD": Credentials(layout).bootstrap_password,
        "FLIP_SIGNING_KEY": str(layout.signing_key),
    }


def _object_store(layout: Layout) -> Environment:
    access_key, secret_key = Credentials(layout).s3
    return {
        "FLIP_S3_ENDPOINT": layout.url("s3"),
        "FLIP_S3_ACCESS_KEY": access_key,
        "FLIP_S3_SECRET_KEY": secret_key,
        "FLIP_S3_BUCKET": s3.BUCKET,
    }


def _ledger(layout: Layout) -> Environment:
    return {"FLIP_S3_BUCKET": s3.LEDGER_BUCKET, "FLIP_SIGNING_KEY": str(layout.ledger_key)}


def _scanner(layout: Layout) -> Environment:
    return {"FLIP_CLAMD_HOST": "127.0.0.1", "FLIP_CLAMD_PORT": str(layout.port("clamd"))}


def _frozen_cohort(layout: Layout, trust: str) -> Environment:
    return {"FLIP_FROZEN_COHORT": Cluster.of(layout, trust).dsn("cohort", FROZEN_COHORT_READER)}


def _images(layout: Layout, trust: str) -> Environment:
    credentials = Credentials(layout)
    pacs_user, pacs_password = credentials.orthanc("pacs", trust)
    archive_user, archive_password = credentials.orthanc("archive", trust)
    return {
        "FLIP_DATASETS": str(layout.datasets(trust)),
        "FLIP_PACS_HOST": "127.0.0.1",
        "FLIP_PACS_DICOM_PORT": str(layout.port(f"pacs-dicom-{trust}")),
        "FLIP_PACS_AET": orthanc.title("pacs", trust),
        "FLIP_AET": orthanc.importer_title(trust),
        "FLIP_PACS_URL": f"{layout.url(f'pacs-{trust}')}/dicom-web",
        "FLIP_PACS_USER": pacs_user,
        "FLIP_PACS_PASSWORD": pacs_password,
        "FLIP_ARCHIVE_URL": f"{layout.url(f'archive-{trust}')}/dicom-web",
        "FLIP_ARCHIVE_USER": archive_user,
        "FLIP_ARCHIVE_PASSWORD": archive_password,
        "FLIP_PSEUDONYM_KEY_FILE": str(credentials.pseudonym_key_file(trust)),
    }


def _controller(layout: Layout, net: Net) -> Environment:
    return {
        **_net(layout, net, HUB),
        "FLIP_ROLE": "controller",
        "FLIP_KIT": str(kits.server_kit(layout, net)),
        "FLIP_ADMIN_KIT": str(kits.admin_kit(layout, net)),
        "FLIP_COMPUTE_PROFILE": json.dumps(SMALL_MACHINE),
        "FLIP_PATIENCE": json.dumps(PATIENCE),
    }


def _worker(layout: Layout, net: Net, trust: str) -> Environment:
    return {
        **_net(layout, net, trust),
        "FLIP_ROLE": "worker",
        "FLIP_KIT": str(kits.client_kit(layout, net, trust)),
    }


def _net(layout: Layout, net: Net, owner: str) -> Environment:
    return {
        "FLIP_NET": net.name,
        "FLIP_FRAMEWORK": net.framework,
        "FLIP_TRAINER_PYTHON": str(layout.trainer_python(net.framework)),
        "FLIP_WORK": str(layout.folder(owner, "work", net.name)),
    }
