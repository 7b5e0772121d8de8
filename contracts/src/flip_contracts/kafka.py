"""What the broker must hold and grant: Strimzi's KafkaTopic and KafkaUser resources, made from the topic catalogue.

The rights are the least that is needed, as in the local stack: writing is granted to a topic's writers, reading to its
readers, with the consumer groups that begin with the reader's own name. What isn't granted is refused.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from flip_contracts.catalogue import Topic, group_prefix, topics

TRUST_PARAMETER = "{trust}"
_API = "kafka.strimzi.io/v1"


def resources(trusts: Iterable[str]) -> dict[str, Any]:
    """A Kubernetes list of all topics and users of a deployment with these Trusts.

    With `TRUST_PARAMETER` as the only code it is a template: each resource and each right whose name holds the
    parameter stands for one a Trust. Names in Kubernetes are in lower case, and so is the certificate's common name by
    which Strimzi knows a user; a hub service's certificate is Strimzi's to make, a Trust makes its own.
    """
    known = topics(trusts)
    principals = sorted({principal for topic in known for principal in topic.writers | topic.readers})
    items = [*map(_topic, known), *(_user(principal, known) for principal in principals)]
    return {"apiVersion": "v1", "kind": "List", "items": items}


def _topic(topic: Topic) -> dict[str, Any]:
    retention_ms = -1 if topic.retention_ms is None else topic.retention_ms
    return {
        "apiVersion": _API,
        "kind": "KafkaTopic",
        "metadata": {"name": topic.name.lower()},
        "spec": {
            "topicName": topic.name,
            "partitions": topic.partitions,
            "config": {"cleanup.policy": "delete", "retention.ms": retention_ms},
        },
    }


def _user(principal: str, known: Iterable[Topic]) -> dict[str, Any]:
    by = "tls-external" if principal.startswith("trust.") else "tls"
    return {
        "apiVersion": _API,
        "kind": "KafkaUser",
        "metadata": {"name": principal.lower()},
        "spec": {
            "authentication": {"type": by},
            "authorization": {"type": "simple", "acls": list(_rights(principal, known))},
        },
    }


def _rights(principal: str, known: Iterable[Topic]) -> Iterator[dict[str, Any]]:
    for topic in known:
        operations = ["Read"] * (principal in topic.readers) + ["Write"] * (principal in topic.writers)
        if operations:
            yield _right("topic", topic.name, "literal", operations)
    if any(principal in topic.readers for topic in known):
        yield _right("group", group_prefix(principal), "prefix", ["Read"])


def _right(kind: str, name: str, pattern: str, operations: list[str]) -> dict[str, Any]:
    return {"resource": {"type": kind, "name": name, "patternType": pattern}, "operations": operations, "host": "*"}
