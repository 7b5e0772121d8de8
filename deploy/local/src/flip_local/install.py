"""Installs what the stack's parts are made of: Debian packages, Kafka's jars, the S3 gateway.

Each step looks first whether its part is there in the wanted version, so a second run takes a moment.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from flip_local import pki
from flip_local.control import StackProblem
from flip_local.layout import Layout
from flip_local.parts import kafka, s3

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Toolchain:
    """A program that must be there before anything, the version that it must have, and how it is had."""

    name: str
    command: tuple[str, ...]
    least: tuple[int, ...]
    mend: str


TOOLCHAINS = (
    Toolchain("Python", ("python3", "--version"), (3, 11), "apt-get install python3 python3-venv"),
    Toolchain("Go", ("go", "version"), (1, 21), "install Go 1.21 or newer and put it on PATH"),
    Toolchain("Java", ("java", "-version"), (17,), "apt-get install openjdk-17-jdk-headless"),
    Toolchain("Maven", ("mvn", "--version"), (3, 6), "apt-get install maven"),
    Toolchain("Node", ("node", "--version"), (20,), "install Node 20 or newer and put it on PATH"),
)

PACKAGES = {
    "postgresql": "/usr/lib/postgresql/*/bin/postgres",
    "orthanc": "/usr/sbin/Orthanc",
    "orthanc-dicomweb": "/usr/share/orthanc/plugins/libOrthancDicomWeb.so",
    "dcmtk": "/usr/bin/storescu",
    "nginx-light": "/usr/sbin/nginx",
    "clamav-daemon": "/usr/sbin/clamd",
    "bubblewrap": "/usr/bin/bwrap",
    "mricron-data": "/usr/share/mricron/templates/aal.nii.gz",
}
"""Debian packages, each with a file by which it is known to be installed."""

_DAEMONS = ("postgresql", "orthanc", "nginx", "clamav-daemon", "clamav-freshclam")
_POLICY = Path("/usr/sbin/policy-rc.d")
_COLOUR = re.compile(r"\x1b\[[\d;]*m")
_ARCHIVE_DEADLINE_S = 120.0


def install(layout: Layout, tell: Tell) -> None:
    """Have everything that the stack's parts are made of; `tell` hears of each step that takes time.

    Raises:
        StackProblem: a toolchain is missing, a step fails, or this system forbids what the stack needs.
    """
    require_toolchains()
    install_packages(tell)
    require_namespaces()
    install_kafka(layout, tell)
    install_s3(layout, tell)


def require_toolchains() -> None:
    """Refuse to go on without the toolchains, saying in a line each what is missing and how to mend it."""
    problems = [problem for toolchain in TOOLCHAINS if (problem := _problem(toolchain))]
    if problems:
        raise StackProblem("\n".join(problems))


def _problem(toolchain: Toolchain) -> str | None:
    wanted = ".".join(map(str, toolchain.least))
    if shutil.which(toolchain.command[0]) is None:
        return f"{toolchain.name} {wanted} or newer is missing: {toolchain.mend}"
    said = subprocess.run(toolchain.command, capture_output=True, text=True, check=True)
    plain = _COLOUR.sub("", said.stdout + said.stderr)
    match = re.search(r"(\d+)(?:\.(\d+))?", plain)
    version = tuple(int(number) for number in match.groups(default="0")) if match else (0,)
    if version < toolchain.least:
        return f"{toolchain.name} is {'.'.join(map(str, version))}, {wanted} or newer is needed: {toolchain.mend}"
    return None


def require_namespaces() -> None:
    """Refuse to go on where this user may not make the namespaces in which the stack is kept."""
    probe = ("unshare", "--user", "--map-current-user", "--pid", "--fork", "--mount-proc", "true")
    if subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        raise StackProblem(
            "this user may not make user and pid namespaces: as root, "
            "`sysctl kernel.apparmor_restrict_unprivileged_userns=0 kernel.unprivileged_userns_clone=1`"
        )


def install_packages(tell: Tell) -> None:
    """Install the Debian packages that are missing, and leave none of their daemons running."""
    missing = [name for name, file in PACKAGES.items() if not list(Path("/").glob(file.lstrip("/")))]
    if not missing:
        return
    tell(f"Debian packages: {' '.join(missing)}")
    with _no_daemons_started():
        _run_as_root("apt-get", "update", "-q")
        _run_as_root("apt-get", "install", "-y", "-q", "--no-install-recommends", *missing)
    if Path("/run/systemd/system").exists():
        units = [unit for unit in _DAEMONS if any(unit.startswith(name.partition("-")[0]) for name in missing)]
        _run_as_root("systemctl", "disable", "--now", "-q", *units)


@contextmanager
def _no_daemons_started() -> Iterator[None]:
    """Forbid package scripts to start services; a policy that the machine has already is respected."""
    if _POLICY.exists():
        yield
        return
    with tempfile.NamedTemporaryFile("w") as policy:
        policy.write("#!/bin/sh\nexit 101\n")
        policy.flush()
        _run_as_root("install", "-m", "755", policy.name, str(_POLICY))
    try:
        yield
    finally:
        _run_as_root("rm", str(_POLICY))


def install_kafka(layout: Layout, tell: Tell) -> None:
    """Fetch Kafka's jars by Maven and make the archive of its classes that halves its start."""
    home = kafka.kafka_home(layout.downloads)
    with _stamped(home, "jars", kafka.KAFKA_VERSION) as todo:
        if todo:
            tell(f"Apache Kafka {kafka.KAFKA_VERSION} by Maven")
            with resources.as_file(resources.files("flip_local") / "kafka-pom.xml") as pom:
                copy = ("dependency:copy-dependencies", f"-DoutputDirectory={home / 'lib'}")
                _run("mvn", "-q", "-B", "-f", str(pom), *copy)
    java_version = subprocess.run(("java", "-version"), capture_output=True, text=True, check=True).stderr
    with _stamped(home, "archive", java_version) as todo:
        if todo:
            tell("Kafka's class archive")
            _archive_classes(layout)


def _archive_classes(layout: Layout) -> None:
    """Run a broker once in a scratch folder: on its way out the JVM writes down the classes that it had loaded."""
    home = kafka.kafka_home(layout.downloads)
    (home / "kafka.jsa").unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        trial = Layout(checkout=layout.checkout, state=Path(scratch), port_base=layout.port_base)
        pki.create(trial)
        node = kafka.Node.of(trial)
        for path, text in kafka.configuration(node).items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        kafka.format_storage(layout.downloads, node)
        command = kafka.java(
            layout.downloads, node.logging, "kafka.Kafka", str(node.properties), share="ArchiveClassesAtExit"
        )
        log = Path(scratch) / "kafka.log"
        with log.open("wb") as output:
            broker = subprocess.Popen(command, stdout=output, stderr=output)
        deadline = time.monotonic() + _ARCHIVE_DEADLINE_S
        while "Kafka Server started" not in log.read_text():
            if broker.poll() is not None or time.monotonic() > deadline:
                broker.kill()
                broker.wait()
                raise StackProblem(f"Kafka doesn't start:\n{log.read_text()[-2000:]}")
            time.sleep(0.1)
        broker.terminate()
        broker.wait(_ARCHIVE_DEADLINE_S)


def install_s3(layout: Layout, tell: Tell) -> None:
    """Build the S3 gateway."""
    with _stamped(layout.downloads, "versitygw", s3.VERSION) as todo:
        if todo:
            tell(f"the S3 gateway {s3.VERSION} by go install")
            _run(
                "go",
                "install",
                f"{s3.MODULE}@{s3.VERSION}",
                environment={"GOBIN": str(layout.downloads), "CGO_ENABLED": "0"},
            )


@contextmanager
def _stamped(folder: Path, name: str, version: str) -> Iterator[bool]:
    """Whether `name` has yet to be made in this version; once the block has ended well, that it has been."""
    folder.mkdir(parents=True, exist_ok=True)
    stamp = folder / f".{name}"
    todo = not stamp.exists() or stamp.read_text() != version
    yield todo
    if todo:
        stamp.write_text(version)


def _run_as_root(*command: str) -> None:
    if os.geteuid() == 0:
        _run(*command, environment={"DEBIAN_FRONTEND": "noninteractive"})
    elif shutil.which("sudo"):
        _run("sudo", "DEBIAN_FRONTEND=noninteractive", *command)
    else:
        raise StackProblem(f"run as root, then try again: {' '.join(command)}")


def _run(*command: str, environment: dict[str, str] | None = None) -> None:
    """Run a step quietly; its output is shown when it fails."""
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **(environment or {})},
        check=False,
    )
    if done.returncode != 0:
        raise StackProblem(f"`{_shown(command)}` exited with {done.returncode}:\n{done.stdout[-2000:]}")


def _shown(command: Sequence[str]) -> str:
    return " ".join(command)
