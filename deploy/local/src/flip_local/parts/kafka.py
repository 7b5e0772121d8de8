"""Apache Kafka: one KRaft node, mutual TLS on both listeners, every right by ACL.

A client's whole certificate subject becomes its principal, so a Trust that is named like a service doesn't get the
service's rights. The broker talks to its own controller over the network with its own certificate, which is why that
principal is a super user.
"""

from __future__ import annotations

import subprocess
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flip_local import pki
from flip_local.layout import HUB, Layout
from flip_local.part import Part, TaskProbe, TcpProbe
from flip_local.task import task

HEAP_MIB = 256
"""128 MiB ends in an OutOfMemoryError."""

KAFKA_VERSION = "4.3.0"

_LOGGING = """\
Configuration:
  Appenders:
    Console: {name: STDOUT, PatternLayout: {pattern: "%d{ISO8601} %p %c{1} %m%n"}}
  Loggers:
    Root: {level: WARN, AppenderRef: {ref: STDOUT}}
    Logger:
      - {name: kafka.server, level: INFO}
      - {name: kafka.authorizer.logger, level: INFO}
"""


@dataclass(frozen=True, slots=True)
class Node:
    """A broker's folder, ports and certificates."""

    folder: Path
    port: int
    controller_port: int
    certificate: Path
    ca: Path

    @classmethod
    def of(cls, layout: Layout) -> Node:
        return cls(
            folder=layout.folder(HUB, "kafka"),
            port=layout.port("kafka"),
            controller_port=layout.port("kafka-controller"),
            certificate=layout.certificate(pki.BROKER),
            ca=layout.ca,
        )

    @property
    def properties(self) -> Path:
        return self.folder / "server.properties"

    @property
    def logging(self) -> Path:
        return self.folder / "log4j2.yaml"


def settings(node: Node) -> Mapping[str, str]:
    """The broker's configuration."""
    listeners = f"MTLS://127.0.0.1:{node.port},CONTROLLER://127.0.0.1:{node.controller_port}"
    kinds = "|".join(pki.KINDS)
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.bootstrap.servers": f"127.0.0.1:{node.controller_port}",
        "listeners": listeners,
        "advertised.listeners": listeners,
        "listener.security.protocol.map": "MTLS:SSL,CONTROLLER:SSL",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "MTLS",
        "log.dirs": str(node.folder / "data"),
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(node.certificate),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(node.ca),
        "ssl.client.auth": "required",
        "ssl.principal.mapping.rules": f"RULE:^CN=([A-Za-z0-9-]+),OU=({kinds}),O=flip$/$2.$1/,DEFAULT",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": f"User:{pki.BROKER};User:{pki.ADMIN}",
        "allow.everyone.if.no.acl.found": "false",
        "auto.create.topics.enable": "false",
        # One node holds every internal topic.
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "share.coordinator.state.topic.num.partitions": "4",
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        # A killed broker is refused by its controller until its old session has ended.
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
        "num.network.threads": "2",
        "num.io.threads": "4",
        "log.cleaner.dedupe.buffer.size": "16777216",
    }


def java(downloads: Path, logging: Path, *arguments: str, share: str = "SharedArchiveFile") -> tuple[str, ...]:
    """A JVM for a short-lived or small Kafka program; the class archive halves its start."""
    home = kafka_home(downloads)
    return (
        "java",
        f"-Xms{HEAP_MIB}m",
        f"-Xmx{HEAP_MIB}m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-XX:+ExitOnOutOfMemoryError",
        f"-XX:{share}={home / 'kafka.jsa'}",
        f"-Dlog4j2.configurationFile={logging}",
        "-cp",
        ":".join(map(str, sorted((home / "lib").glob("*.jar")))),
        *arguments,
    )


def kafka_home(downloads: Path) -> Path:
    """Where Kafka's jars and its class archive are."""
    return downloads / f"kafka-{KAFKA_VERSION}"


def configuration(node: Node) -> Mapping[Path, str]:
    """The broker's files."""
    properties = "".join(f"{name}={value}\n" for name, value in settings(node).items())
    return {node.properties: properties, node.logging: _LOGGING}


def parts(layout: Layout) -> list[Part]:
    """The formatted storage and the broker."""
    node = Node.of(layout)
    return [
        Part(
            name="kafka-storage",
            command=task("flip_local.parts.kafka"),
            ready=TaskProbe(),
            files=configuration(node),
        ),
        Part(
            name="kafka",
            command=java(layout.downloads, node.logging, "kafka.Kafka", str(node.properties)),
            ready=TcpProbe(node.port),
            after=("kafka-storage",),
            ports=(node.port, node.controller_port),
            files=configuration(node),
        ),
    ]


def format_storage(downloads: Path, node: Node) -> None:
    """Give the node's log folder its cluster id, once."""
    if (node.folder / "data" / "meta.properties").exists():
        return
    cluster = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    identity = f"--cluster-id={cluster}"  # one that begins with "-" would be taken for an option of its own
    tool = ("kafka.tools.StorageTool", "format", identity, "-c", str(node.properties), "--standalone")
    subprocess.run(java(downloads, node.logging, *tool), check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    stack_layout = Layout.from_environment()
    format_storage(stack_layout.downloads, Node.of(stack_layout))
