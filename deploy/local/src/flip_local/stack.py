"""What a whole local stack is made of."""

from __future__ import annotations

from flip_local import services
from flip_local.layout import Layout, Net
from flip_local.part import Part
from flip_local.parts import clamd, gateway, kafka, kits, orthanc, postgres, records, s3, smtp, topics

_MODULES = (postgres, kafka, topics, s3, clamd, smtp, orthanc, gateway, records, kits, services)


def parts(layout: Layout) -> dict[str, Part]:
    """Every part of the stack by its name."""
    found = [part for module in _MODULES for part in module.parts(layout)]
    assert len({part.name for part in found}) == len(found), "two parts have one name"
    return {part.name: part for part in found}


def usual(layout: Layout) -> dict[str, Part]:
    """The parts that are started when none is named."""
    return {name: part for name, part in parts(layout).items() if not part.on_request}


def of_net(layout: Layout, net: Net) -> list[str]:
    """The names of a net's services; with what they need they are the whole net."""
    return [net.name, *(f"{net.name}-{trust}" for trust in layout.trusts)]
