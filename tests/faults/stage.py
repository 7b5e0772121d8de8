"""The stack that cases are played on: the whole platform with both nets, and a project that is ready to be trained."""

import dataclasses
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from flip_contracts.projects import Framework
from flip_local import control
from flip_local.layout import Layout
from flip_local.stack import of_net, usual
from flip_local.story import Story
from flip_local.testing import layout_for_tests

from .play import Stack

_PORTS_ABOVE_TESTS = 500


def layout_for_faults() -> Layout:
    """A stack of its own beside those of the other tests."""
    layout = layout_for_tests()
    return dataclasses.replace(
        layout, state=layout.state.with_name("faults-stack"), port_base=layout.port_base + _PORTS_ABOVE_TESTS
    )


@contextmanager
def stack(folder: Path, frameworks: Collection[Framework]) -> Iterator[Stack]:
    """The stack while the block lasts, with the nets of these frameworks."""
    layout = layout_for_faults()
    nets = [name for net in layout.nets if net.framework in frameworks for name in of_net(layout, net)]
    control.up(layout, [*usual(layout), *nets])
    try:
        story = Story(layout, folder)
        story.prepare()
        researcher, admin = story.researcher(), story.admin()
        yield Stack(layout, story, researcher, admin)
        for hub in (researcher, admin):
            hub.session.close()
    finally:
        control.down(layout)
