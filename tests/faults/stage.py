"""The stack that cases are played on: the whole platform with both nets, and a project that is ready to be trained."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from flip_contracts.projects import Framework
from flip_local import control
from flip_local.stack import of_net, usual
from flip_local.story import Story
from flip_local.testing import layout_beside_tests

from .play import Stack

_PORTS_ABOVE_TESTS = 500


@contextmanager
def stack(folder: Path, frameworks: Collection[Framework]) -> Iterator[Stack]:
    """The stack while the block lasts, with the nets of these frameworks."""
    layout = layout_beside_tests("faults-stack", _PORTS_ABOVE_TESTS)
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
