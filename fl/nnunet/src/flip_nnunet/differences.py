"""Where JSON records of several sites differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flip_nnunet.message import Json


def differences(records: Mapping[str, Any], path: str = "") -> list[Json]:
    """Every place where the sites' values differ, as `{"path": "/a/0/b", "values": {site: value}}`.

    A site without a value has None there. Lists of different lengths differ as a whole.
    """
    values = list(records.values())
    if all(value == values[0] and type(value) is type(values[0]) for value in values):
        return []
    if all(isinstance(value, dict) for value in values):
        keys = sorted({key for value in values for key in value})
        parts = {key: {site: record.get(key) for site, record in records.items()} for key in keys}
    elif all(isinstance(value, list) and len(value) == len(values[0]) for value in values):
        parts = {index: {site: record[index] for site, record in records.items()} for index in range(len(values[0]))}
    else:
        return [{"path": path or "/", "values": dict(records)}]
    return [found for key, part in parts.items() for found in differences(part, f"{path}/{key}")]
