"""The topics of the catalogue and the rights on them, and nothing more: what isn't granted here is refused."""

# The client's package exports these names without saying so.
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from typing import Any, cast

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)
from flip_contracts.catalogue import Topic, group_prefix, topics

from flip_local import pki
from flip_local.layout import Layout
from flip_local.part import Part, TaskProbe
from flip_local.task import task

_DEADLINE_S = 30.0
_POLL_S = 0.05


def parts(_: Layout) -> list[Part]:
    """The task that makes the catalogue's topics and rights."""
    return [Part(name="topics", command=task("flip_local.parts.topics"), ready=TaskProbe(), after=("kafka",))]


def client_settings(layout: Layout, principal: str) -> dict[str, Any]:
    """librdkafka's settings for a principal of the stack."""
    certificate = str(layout.certificate(principal))
    return {
        "bootstrap.servers": layout.kafka,
        "security.protocol": "ssl",
        "ssl.ca.location": str(layout.ca),
        "ssl.certificate.location": certificate,
        "ssl.key.location": certificate,
        # What goes wrong is raised where it is asked for; the client's own lines go to stderr by themselves.
        "log_level": 2,
    }


def apply(admin: AdminClient, wanted: Iterable[Topic]) -> None:
    """Make each topic and right that isn't there yet, and return when the broker shows them all.

    Raises:
        ValueError: a topic exists with another number of partitions; they can't be changed without reordering its keys.
        KafkaException: the broker refuses.
        TimeoutError: the broker doesn't show what it has accepted.
    """
    wanted = list(wanted)
    _create_topics(admin, wanted)
    rights = [right for topic in wanted for right in _rights(topic)]
    _all(admin.create_acls(list(dict.fromkeys(rights))))
    names = {topic.name for topic in wanted}
    _until(lambda: names <= admin.list_topics(timeout=_DEADLINE_S).topics.keys(), "topics")
    _until(lambda: set(rights) <= set(_visible_rights(admin)), "rights")


def remove(admin: AdminClient, names: Iterable[str]) -> None:
    """Delete topics with their records and the rights on them."""
    names = list(names)
    _all(admin.delete_topics(names))
    _all(admin.delete_acls([_acls_on(ResourceType.TOPIC, name, ResourcePatternType.LITERAL) for name in names]))


def _create_topics(admin: AdminClient, wanted: list[Topic]) -> None:
    existing = admin.list_topics(timeout=_DEADLINE_S).topics
    for topic in wanted:
        if topic.name in existing and len(existing[topic.name].partitions) != topic.partitions:
            raise ValueError(
                f"{topic.name} has {len(existing[topic.name].partitions)} partitions and should have "
                f"{topic.partitions}: remove the stack's state to start anew"
            )
    missing = [topic for topic in wanted if topic.name not in existing]
    if missing:
        _all(admin.create_topics([_new_topic(topic) for topic in missing]), harmless=KafkaError.TOPIC_ALREADY_EXISTS)


def _new_topic(topic: Topic) -> NewTopic:
    retention = -1 if topic.retention_ms is None else topic.retention_ms
    return NewTopic(topic.name, topic.partitions, 1, config={"retention.ms": str(retention)})


def _rights(topic: Topic) -> Iterator[AclBinding]:
    for writer in topic.writers:
        yield _right(writer, ResourceType.TOPIC, topic.name, AclOperation.WRITE)
    for reader in topic.readers:
        yield _right(reader, ResourceType.TOPIC, topic.name, AclOperation.READ)
        # By prefix up to its end mark, so that no other principal's name continues it.
        group = group_prefix(reader)
        yield _right(reader, ResourceType.GROUP, group, AclOperation.READ, ResourcePatternType.PREFIXED)


def _right(
    principal: str,
    resource: ResourceType,
    name: str,
    operation: AclOperation,
    pattern: ResourcePatternType = ResourcePatternType.LITERAL,
) -> AclBinding:
    return AclBinding(resource, name, pattern, f"User:{principal}", "*", operation, AclPermissionType.ALLOW)


def _visible_rights(admin: AdminClient) -> list[AclBinding]:
    return admin.describe_acls(_acls_on(ResourceType.ANY, None, ResourcePatternType.ANY)).result(_DEADLINE_S)


def _acls_on(resource: ResourceType, name: str | None, pattern: ResourcePatternType) -> AclBindingFilter:
    # None is any: any name, any principal, any host. The client's types don't say so.
    whoever: Any = None
    return AclBindingFilter(
        resource, cast("str", name), pattern, whoever, whoever, AclOperation.ANY, AclPermissionType.ANY
    )


def _all(futures: Mapping[Any, Future[Any]], harmless: int | None = None) -> None:
    for future in futures.values():
        try:
            future.result(_DEADLINE_S)
        except KafkaException as problem:
            if problem.args[0].code() != harmless:
                raise


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"the broker doesn't show its new {what} within {_DEADLINE_S:.0f} s")
        time.sleep(_POLL_S)


def main() -> None:
    layout = Layout.from_environment()
    apply(AdminClient(client_settings(layout, pki.ADMIN)), topics(layout.trusts))


if __name__ == "__main__":
    main()
