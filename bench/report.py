"""What the run says: chapters of figures and goals, printed and written as Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bench.measuring import Series

Unit = Literal["x", "%", "ms", "/s"]

_INTRODUCTION = """\
Written by `make bench`. Contenders run side by side in one run: they take turns on the same Postgres and the same
Kafka, with TLS, rights and durable commits as in production. A figure is the median of {rounds}, with the lowest and
the highest beside it. A rate is taken between two looks at the result, which is what is committed in Postgres or
acknowledged by Kafka, so connecting and joining a group stay out of it. A goal that was missed says so.
"""


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is done: rounds that count, and how large each is."""

    rounds: int
    size: float

    def of(self, count: int) -> int:
        """A count at this size."""
        return max(1, round(count * self.size))


@dataclass(frozen=True, slots=True)
class Goal:
    """What was wanted, and what came."""

    what: str
    wanted: float
    reached: float
    unit: Unit
    at_most: bool = False

    @property
    def is_met(self) -> bool:
        return self.reached <= self.wanted if self.at_most else self.reached >= self.wanted


@dataclass(frozen=True, slots=True)
class Chapter:
    """The answer to one question."""

    title: str
    text: str
    series: tuple[Series, ...]
    goals: tuple[Goal, ...]


def times(ours: Series, peer: Series, wanted: float) -> Goal:
    """The goal of being `wanted` times as fast as a peer."""
    return Goal(f"{ours.name} against {peer.name}", wanted, ours.median / peer.median, "x")


def share(ours: Series, ceiling: Series, wanted_percent: float) -> Goal:
    """The goal of keeping so much of what would be possible without us."""
    return Goal(f"{ours.name} against {ceiling.name}", wanted_percent, 100 * ours.median / ceiling.median, "%")


def figure(value: float, unit: str) -> str:
    """A value as people read it: three digits that say something, thousands apart."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}{'' if unit in {'x', '/s'} else ' '}{unit}"


def markdown(chapters: Sequence[Chapter], machine: Sequence[tuple[str, str]], rounds: int) -> str:
    """The whole page."""
    goals = [goal for chapter in chapters for goal in chapter.goals]
    return "\n".join(
        [
            "# Benchmarks",
            "",
            *_INTRODUCTION.format(rounds="one round" if rounds == 1 else f"{rounds} rounds").splitlines(),
            "",
            *_table(("goal", "wanted", "reached", ""), [_goal(goal) for goal in goals]),
            "",
            "## The machine",
            "",
            *_table(("", ""), machine),
            *(line for chapter in chapters for line in _chapter(chapter)),
            "",
        ]
    )


def _goal(goal: Goal) -> tuple[str, ...]:
    sign = "≤" if goal.at_most else "≥"
    wanted = f"{sign} {figure(goal.wanted, goal.unit)}"
    return goal.what, wanted, figure(goal.reached, goal.unit), "met" if goal.is_met else "**missed**"


def _chapter(chapter: Chapter) -> list[str]:
    rows = [
        (
            series.name,
            series.settings,
            figure(series.median, series.unit),
            f"{figure(min(series.values), series.unit)} to {figure(max(series.values), series.unit)}",
        )
        for series in chapter.series
    ]
    return [
        "",
        f"## {chapter.title}",
        "",
        chapter.text,
        "",
        *_table(("contender", "settings", "median", "range"), rows),
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]
