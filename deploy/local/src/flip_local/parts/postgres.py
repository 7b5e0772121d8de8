"""PostgreSQL: one cluster for the hub and one a Trust, a database and two roles a service, and a net.

A database belongs to `<service>_owner`, which runs the migrations. The service itself logs in as `<service>`, which
may connect and nothing else until its owner grants it rights on tables; so append-only tables stay append-only.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

from flip_local.credentials import Credentials
from flip_local.layout import HUB, Layout, Net
from flip_local.part import CommandProbe, Part, TaskProbe
from flip_local.task import task

SUPERUSER = "postgres"
OMOP = "omop"
OMOP_READER = "omop_reader"
FROZEN_COHORT_READER = "cohort_frozen_reader"

_HUB_DATABASES = ("auth", "projects", "cohort", "imaging", "files", "scheduler", "audit")
_TRUST_DATABASES = ("cohort", "imaging", OMOP)
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running or future Postgres server and the passwords of its roles."""

    name: str
    folder: Path
    port: int
    credentials: Credentials

    @classmethod
    def of(cls, layout: Layout, name: str) -> Cluster:
        return cls(name, layout.folder(name, "postgres"), layout.port(f"postgres-{name}"), Credentials(layout))

    def dsn(self, database: str, role: str) -> str:
        """The address of a database for one of its roles, password included."""
        password = quote(self.credentials.postgres(self.name, role), safe="")
        return f"postgresql://{role}:{password}@127.0.0.1:{self.port}/{database}"

    @contextmanager
    def administration(self, database: str = SUPERUSER) -> Iterator[psycopg.Connection]:
        """A superuser's connection in autocommit, for `CREATE DATABASE` and the like."""
        with psycopg.connect(self.dsn(database, SUPERUSER), autocommit=True) as connection:
            yield connection

    def create_role(self, role: str, settings: Mapping[str, str] | None = None) -> None:
        """Make a login role without any right, or give an existing one its password and settings again."""
        _require_name(role)
        name = sql.Identifier(role)
        password = sql.Literal(self.credentials.postgres(self.name, role))
        with self.administration() as connection:
            exists = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)).fetchone()
            verb = sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}" if exists else "CREATE ROLE {} LOGIN PASSWORD {}")
            connection.execute(verb.format(name, password))
            for setting, value in (settings or {}).items():
                alter = sql.SQL("ALTER ROLE {} SET {} = {}")
                connection.execute(alter.format(name, sql.Identifier(setting), sql.Literal(value)))

    def create_database(self, name: str, owner: str, *readers: str) -> None:
        """Make a database that `owner` owns and `readers` may connect to; harmless when it is there."""
        _require_name(name)
        with self.administration() as connection:
            exists = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone()
            if not exists:
                create = sql.SQL("CREATE DATABASE {} OWNER {}")
                connection.execute(create.format(sql.Identifier(name), sql.Identifier(owner)))
            revoke = sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC")
            connection.execute(revoke.format(sql.Identifier(name)))
            for reader in readers:
                grant = sql.SQL("GRANT CONNECT ON DATABASE {} TO {}")
                connection.execute(grant.format(sql.Identifier(name), sql.Identifier(reader)))
        with self.administration(name) as connection:
            connection.execute(sql.SQL("ALTER SCHEMA public OWNER TO {}").format(sql.Identifier(owner)))
            connection.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
            for reader in readers:
                connection.execute(sql.SQL("GRANT USAGE ON SCHEMA public TO {}").format(sql.Identifier(reader)))

    def drop_database(self, name: str, *roles: str) -> None:
        """Remove a database, whoever is connected to it, and roles that own nothing else."""
        with self.administration() as connection:
            drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
            connection.execute(drop.format(sql.Identifier(name)))
            for role in roles:
                connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(role)))


def app_role(database: str) -> str:
    """The role that a service logs in as."""
    return OMOP_READER if database == OMOP else database


def owner_role(database: str) -> str:
    """The role that owns a service's database."""
    return f"{database}_owner"


def net_database(net: Net) -> str:
    """The database of a net's controller in the hub's cluster, and of its worker in a Trust's."""
    return f"trainer_node_{net.name}"


def databases(layout: Layout, cluster: str) -> tuple[str, ...]:
    """The databases of the hub's or of a Trust's cluster."""
    services = _HUB_DATABASES if cluster == HUB else _TRUST_DATABASES
    return (*services, *(net_database(net) for net in layout.nets))


def initialise(cluster: Cluster) -> None:
    """Make the cluster's data folder, once."""
    data = cluster.folder / "data"
    if (data / "PG_VERSION").exists():
        return
    with tempfile.NamedTemporaryFile("w", dir=cluster.folder) as password:
        password.write(cluster.credentials.postgres(cluster.name, SUPERUSER))
        password.flush()
        # --no-sync: a crash during this task leaves no PG_VERSION that is believed, and the server syncs from then on.
        options = ("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--data-checksums", "--no-sync")
        initdb = (str(binaries() / "initdb"), "-U", SUPERUSER, f"--pwfile={password.name}", *options)
        subprocess.run((*initdb, "-D", str(data)), check=True)


def create_databases(cluster: Cluster, names: Iterable[str]) -> None:
    """Make these databases of the cluster with their roles."""
    for database in names:
        owner, app = owner_role(database), app_role(database)
        cluster.create_role(owner)
        cluster.create_role(app, {"default_transaction_read_only": "on"} if app == OMOP_READER else {})
        cluster.create_database(database, owner, app)
    if cluster.name != HUB:
        cluster.create_role(FROZEN_COHORT_READER, {"default_transaction_read_only": "on"})
        cluster.create_database("cohort", owner_role("cohort"), FROZEN_COHORT_READER)


def parts(layout: Layout) -> list[Part]:
    """For each cluster: its data folder, the server, its databases."""
    return [part for name in layout.clusters for part in _cluster_parts(Cluster.of(layout, name))]


def server_command(cluster: Cluster) -> tuple[str, ...]:
    """The server in the foreground."""
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": str(cluster.port),
        "unix_socket_directories": "",
        "max_connections": "200" if cluster.name == HUB else "80",
        "shared_buffers": "64MB" if cluster.name == HUB else "32MB",
        "max_wal_size": "512MB",
        "timezone": "UTC",
        "log_timezone": "UTC",
        # Statements hold what people asked for: they never reach a log.
        "log_statement": "none",
        "log_min_error_statement": "panic",
        "shared_preload_libraries": "pg_stat_statements",
    }
    options = [option for name, value in settings.items() for option in ("-c", f"{name}={value}")]
    return (str(binaries() / "postgres"), "-D", str(cluster.folder / "data"), *options)


def binaries() -> Path:
    """The programs of the newest PostgreSQL that Debian has installed.

    Raises:
        FileNotFoundError: there is none.
    """
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not versions:
        raise FileNotFoundError("no PostgreSQL server is installed: run `flip-local install`")
    return versions[-1].parent


def _cluster_parts(cluster: Cluster) -> list[Part]:
    server, data, made = f"postgres-{cluster.name}", f"postgres-{cluster.name}-data", f"databases-{cluster.name}"
    isready = (str(binaries() / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(cluster.port), "-U", SUPERUSER)
    return [
        Part(
            name=data,
            command=task("flip_local.parts.postgres", "initialise", cluster.name),
            ready=TaskProbe(),
            folders=(cluster.folder,),
        ),
        Part(
            name=server,
            command=server_command(cluster),
            ready=CommandProbe(isready),
            after=(data,),
            ports=(cluster.port,),
            # SIGTERM would wait for every client to leave by itself.
            stop_signal=signal.SIGINT,
        ),
        Part(
            name=made,
            command=task("flip_local.parts.postgres", "databases", cluster.name),
            ready=TaskProbe(),
            after=(server,),
        ),
    ]


def _require_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name for a database or role: lower case letters, digits, underscores")


def main() -> None:
    action, name = sys.argv[1:]
    layout = Layout.from_environment()
    cluster = Cluster.of(layout, name)
    match action:
        case "initialise":
            initialise(cluster)
        case "databases":
            create_databases(cluster, databases(layout, name))
        case _:
            raise ValueError(f"{action!r} is nothing that can be done to a cluster")


if __name__ == "__main__":
    main()
