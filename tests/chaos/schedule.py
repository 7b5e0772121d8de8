"""What goes wrong in a run, and when: all of it follows from the seed."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal, get_args

from flip_chassis.crash import POINTS, Point

SERVICES = ("projects", "cohort", "scheduler")
RELAYING: frozenset[Point] = frozenset(point for point in POINTS if point.startswith(("relay.", "log.")))
"""Only services that say something come to these points."""

Kind = Literal[
    "kill",  # SIGKILL at any moment
    "leave",  # a replica leaves its consumer group in good order and joins again
    "pause",  # SIGSTOP, longer than the group waits: a zombie that comes back
    "postgres-crash",  # what `pg_ctl stop -m immediate` does, then a start with recovery
    "broker-kill",
    "broker-restart",
    "cut",  # every connection to the part is reset
    "slow",
    "freeze",  # connections stay open and nothing comes through
    "refuse",  # connections are reset and no new one is let in
    "no-room",  # Postgres lets nobody of the service in
    "repeat",  # the group's offsets are set back: everything is delivered again
    "jump",  # the wall clock of a process jumps
]
KINDS: tuple[Kind, ...] = get_args(Kind)
OF_REPLICAS: frozenset[Kind] = frozenset({"kill", "leave", "pause", "jump"})
OF_SERVICES: frozenset[Kind] = frozenset({"no-room", "repeat"})
OF_PARTS: frozenset[Kind] = frozenset({"cut", "slow", "freeze", "refuse"})
PARTS = ("postgres", "kafka")

STORM_S = 4.0
_FIRST_FAULT_S = 0.8
_ONCE: frozenset[Point] = frozenset({"relay.leading"})
_OFTEN: frozenset[Point] = frozenset({"inbox.handled", "log.appended"})
_HEAVY: tuple[Kind, ...] = ("broker-kill", "broker-restart")
"""A broker takes as long to come back as a whole run lasts."""
_HEAVY_SHARE = 0.15
_LIGHT: tuple[Kind, ...] = tuple(kind for kind in KINDS if kind not in _HEAVY)
_LASTS_S: dict[Kind, tuple[float, float]] = {
    "pause": (0.5, 3.0),
    "no-room": (0.5, 1.5),
    "slow": (0.5, 2.0),
    "freeze": (0.3, 2.0),
    "refuse": (0.3, 2.0),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: `at_s` after the writers have begun, at `target`, a replica, a service or a part."""

    at_s: float
    kind: Kind
    target: str
    for_s: float = 0.0
    amount: float = 0.0
    """slow: seconds a chunk of data; repeat: the share of the run that comes again; jump: minutes."""

    def __str__(self) -> str:
        amount = f" by {self.amount:.3g}" if self.amount else ""
        lasting = f" for {self.for_s:.1f} s" if self.for_s else ""
        return f"{self.at_s:.1f} s {self.kind} {self.target}{amount}{lasting}"


@dataclass(frozen=True, slots=True)
class Death:
    """A replica kills itself when it passes a point for the n-th time in one of its lives."""

    replica: str
    point: Point
    passing: int

    def __str__(self) -> str:
        return f"{self.replica} dies at {self.point}#{self.passing}"


@dataclass(frozen=True, slots=True)
class Schedule:
    """All faults of a run. Each life of a replica takes the replica's next death."""

    seed: int
    replicas: int
    faults: tuple[Fault, ...]
    deaths: tuple[Death, ...]
    to_the_last_death: bool = False
    """Whether the writers go on until every death has come."""

    def deaths_of(self, replica: str) -> list[Death]:
        return [death for death in self.deaths if death.replica == replica]

    @property
    def has_network_faults(self) -> bool:
        return any(fault.kind in OF_PARTS for fault in self.faults)

    def __str__(self) -> str:
        faults = [*map(str, self.faults), *map(str, self.deaths)]
        return f"{self.replicas} replicas; " + ("; ".join(faults) or "no fault")


def drawn(seed: int) -> Schedule:
    """The schedule of a seed: two to five faults, rarely one more of the broker, and up to three deaths."""
    random = Random(f"schedule {seed}")
    replicas = random.choice((1, 2, 2, 3))
    kinds: list[Kind] = [random.choice(_LIGHT) for _ in range(random.randint(2, 5))]
    if random.random() < _HEAVY_SHARE:
        kinds.append(random.choice(_HEAVY))
    deaths = [_death(random, replicas) for _ in range(random.randint(0, 3))]
    return _schedule(random, seed, replicas, kinds, deaths)


def of_kinds(seed: int, kinds: Iterable[Kind], replicas: int = 2) -> Schedule:
    """A schedule with one fault of each of `kinds`."""
    return _schedule(Random(f"schedule {seed}"), seed, replicas, kinds, ())


def of_points(seed: int, points: Sequence[Point] = POINTS) -> Schedule:
    """A schedule in which a process dies at each of `points`, of services with one replica, which passes them all."""
    random = Random(f"schedule {seed}")
    replicas = itertools.cycle(("projects/0", "cohort/0"))
    deaths = [Death(next(replicas), point, 1 if point in _ONCE else random.randint(1, 3)) for point in points]
    return Schedule(seed, 1, (), tuple(deaths), to_the_last_death=True)


def _schedule(random: Random, seed: int, replicas: int, kinds: Iterable[Kind], deaths: Sequence[Death]) -> Schedule:
    faults = sorted((_fault(random, kind, replicas) for kind in kinds), key=lambda fault: fault.at_s)
    return Schedule(seed, replicas, tuple(faults), tuple(deaths))


def _fault(random: Random, kind: Kind, replicas: int) -> Fault:
    at_s = random.uniform(_FIRST_FAULT_S, STORM_S)
    for_s = random.uniform(*_LASTS_S[kind]) if kind in _LASTS_S else 0.0
    return Fault(at_s, kind, _target(random, kind, replicas), for_s, _amount(random, kind))


def _target(random: Random, kind: Kind, replicas: int) -> str:
    if kind in OF_REPLICAS:
        return f"{random.choice(SERVICES)}/{random.randrange(replicas)}"
    if kind in OF_PARTS:
        return random.choice(PARTS)
    if kind in OF_SERVICES:
        return random.choice(SERVICES)
    return "postgres" if kind == "postgres-crash" else "kafka"


def _amount(random: Random, kind: Kind) -> float:
    match kind:
        case "slow":
            return random.uniform(0.005, 0.05)
        case "repeat":
            return random.choice((1.0, random.random()))
        case "jump":
            return random.choice((-1, 1)) * random.uniform(1, 50)
        case _:
            return 0.0


def _death(random: Random, replicas: int) -> Death:
    point = random.choice(POINTS)
    services = ("projects", "cohort") if point in RELAYING else SERVICES
    replica = f"{random.choice(services)}/{random.randrange(replicas)}"
    return Death(replica, point, 1 if point in _ONCE else random.randint(1, 40 if point in _OFTEN else 6))
