"""What a whole local stack is made of."""

from __future__ import annotations

from flip_local import services
from flip_local.layout import Layout
from flip_local.part import Part
from flip_local.parts import clamd, flare, gateway, kafka, orthanc, postgres, records, s3, smtp, topics

_MODULES = (postgres, kafka, topics, s3, clamd, smtp, orthanc, gateway, records, flare, services)


def parts(layout: Layout) -> dict[str, Part]:
    """Every part of the stack by its name."""
    found = [part for module in _MODULES for part in module.parts(layout)]
    assert len({part.name for part in found}) == len(found), "two parts have one name"
    return {part.name: part for part in found}
