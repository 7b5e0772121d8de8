"""The stack that cases are played on: the whole platform with both nets, and a project that is ready to be trained."""

import dataclasses
import shutil
import subprocess
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from flip_contracts.projects import Framework
from flip_local import control
from flip_local.layout import Layout
from flip_local.runtimes import RUNTIMES
from flip_local.stack import of_net, usual
from flip_local.story import Story
from flip_local.testing import layout_beside_tests

from . import misbehaving
from .disk import small_disk
from .network import ways
from .play import TRUST, PlayedNet

_PORTS_ABOVE_TESTS = 500
_HOOK = "misbehaving"


@contextmanager
def nets(folder: Path, frameworks: Collection[Framework]) -> Iterator[Sequence[PlayedNet]]:
    """The nets of these frameworks while the block lasts, on one stack; each is looked at in sessions of its own."""
    own = layout_beside_tests("faults-stack", _PORTS_ABOVE_TESTS)
    layout = dataclasses.replace(own, trainers=own.state / "trainers", forwarded=frozenset({TRUST}))
    played = [net for net in layout.nets if net.framework in frameworks]
    for framework in RUNTIMES:
        _copy_of_trainers(own, layout, framework)
    with ExitStack() as around:
        way = around.enter_context(ways(layout))
        for net in played:
            around.enter_context(small_disk(layout.folder(TRUST, "work", net.name)))
        around.callback(control.down, layout)
        control.up(layout, [*usual(layout), *(name for net in played for name in of_net(layout, net))])
        story = Story(layout, folder)
        story.prepare()
        on_stage = [PlayedNet(layout, net, story, story.researcher(), story.admin(), way) for net in played]
        for each in on_stage:
            around.callback(each.close)
        yield on_stage


def _copy_of_trainers(of: Layout, layout: Layout, framework: Framework) -> None:
    """A copy of a trainers' environment, by hard links, whose interpreters import `misbehaving` when they start."""
    copied, name = layout.trainers, RUNTIMES[framework].environment
    shutil.rmtree(copied / name, ignore_errors=True)
    copied.mkdir(parents=True, exist_ok=True)
    subprocess.run(("cp", "-al", str(of.trainers / name), str(copied / name)), check=True)
    [packages] = (copied / name / "lib").glob("python*/site-packages")
    shutil.copyfile(misbehaving.__file__, packages / f"{_HOOK}.py")
    (packages / f"{_HOOK}.pth").write_text(f"import {_HOOK}\n")
