"""What the supervisor must know of a part: how it starts, when it is ready, what it waits for, how it is stopped."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Group = Literal["parts", "services"]


@dataclass(frozen=True, slots=True)
class TcpProbe:
    """Ready when the port on 127.0.0.1 accepts a connection."""

    port: int


@dataclass(frozen=True, slots=True)
class HttpProbe:
    """Ready when a GET answers with one of `statuses`; `ca` is the authority of an `https` address."""

    url: str
    statuses: frozenset[int] = frozenset({200})
    ca: Path | None = None


@dataclass(frozen=True, slots=True)
class CommandProbe:
    """Ready when the command exits with 0."""

    command: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TaskProbe:
    """The part is a task: it is ready once it has ended with 0, and isn't started again."""


Probe = TcpProbe | HttpProbe | CommandProbe | TaskProbe


@dataclass(frozen=True, slots=True)
class Part:
    """One process of the stack, or one task that ends.

    `folders` are made and `files` written before each start. `after` names the parts that must be ready before this
    one is started the first time. `ports` are those it listens on. One `on_request` is started only when it is named.
    """

    name: str
    command: tuple[str, ...]
    ready: Probe
    group: Group = "parts"
    after: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[Path, str] = field(default_factory=dict)
    folders: tuple[Path, ...] = ()
    start_s: float = 120
    stop_s: float = 10
    stop_signal: signal.Signals = signal.SIGTERM
    on_request: bool = False

    @property
    def is_task(self) -> bool:
        return isinstance(self.ready, TaskProbe)


def with_dependencies(parts: Mapping[str, Part], wanted: Iterable[str]) -> list[Part]:
    """The wanted parts and all they come after, in an order in which each follows its dependencies.

    Raises:
        KeyError: a name is not a part of the stack.
    """
    ordered: dict[str, Part] = {}

    def add(name: str) -> None:
        if name in ordered:
            return
        part = parts[name]
        for dependency in part.after:
            add(dependency)
        ordered[name] = part

    for name in wanted:
        add(name)
    return list(ordered.values())
