"""Which net can take a run, with which Trusts, and what a run still waits for. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from flip_contracts.base import NetName, TrustCode
from flip_contracts.projects import Framework
from flip_contracts.scheduler import Resources

from flip_scheduler.fairness import Waiting

NetState = Literal["free", "held", "released", "lost", "silent"]


@dataclass(frozen=True, slots=True)
class Net:
    """A net: what it runs, the Trusts connected to it, and, where its operator said so, what each has for a run."""

    net: NetName
    framework: Framework
    trusts: frozenset[TrustCode]
    state: NetState = "free"
    draining: bool = False
    resources: Mapping[TrustCode, Resources] = field(default_factory=dict[TrustCode, Resources])

    @property
    def is_alive(self) -> bool:
        """Whether it takes a run, now or after the one that it has."""
        return not self.draining and self.state in {"free", "held", "released"}

    def part(self, run: Waiting) -> frozenset[TrustCode]:
        """The Trusts of the run that could take part: connected, and with what the run asks for."""
        return frozenset(trust for trust in run.trusts & self.trusts if not self.lacking(run, trust))

    def lacking(self, run: Waiting, trust: TrustCode) -> Mapping[str, int]:
        """What the run asks for and this net hasn't at the Trust, with what it has."""
        has = self.resources.get(trust)
        if has is None:
            return {}
        asked = run.resources.model_dump()
        return {name: amount for name, amount in has.model_dump().items() if amount < asked[name]}

    def suits(self, run: Waiting) -> bool:
        """Whether the run could have what it asks for here, were the net in service and free."""
        return run.framework == self.framework and len(self.part(run)) >= run.minimum

    def fits(self, run: Waiting) -> bool:
        """Whether this net can take the run once it is free."""
        return self.is_alive and self.suits(run)


def pair(queue: Sequence[Waiting], nets: Iterable[Net]) -> tuple[Waiting, Net] | None:
    """The first run of the queue that fits a free net, with that net: the one where most of its Trusts take part; of
    several, the one with the fewest others."""
    free = [net for net in nets if net.state == "free"]
    for run in queue:
        if run.rests_until is not None:
            continue
        if fitting := [net for net in free if net.fits(run)]:
            return run, min(fitting, key=lambda net: (-len(net.part(run)), len(net.trusts), net.net))
    return None


Lack = dict[str, Any]
"""What a run waits for: a stable `code`, a `detail` for people, and the net and the Trusts that it is about."""


def waits_for(run: Waiting, nets: Sequence[Net]) -> list[Lack]:
    """What must happen before the run can start. Empty where a net is free for it: it has runs ahead only."""
    if run.rests_until is not None:
        detail = f"Its last attempts brought no further round; it rests until {run.rests_until:%Y-%m-%d %H:%M:%S %Z}."
        return [{"code": "resting", "detail": detail}]
    of_framework = [net for net in nets if net.framework == run.framework]
    suiting = [net for net in of_framework if net.suits(run)]
    fitting = [net for net in suiting if net.is_alive]
    alive = [net for net in of_framework if net.is_alive]
    if any(net.state == "free" for net in fitting):
        return []
    if fitting:
        names = [net.net for net in fitting]
        return [
            {"code": "nets-busy", "detail": "Every net that fits has a run, or cleans up after one.", "nets": names}
        ]
    if not of_framework:
        return [{"code": "no-net", "detail": f"No net of {run.framework} has been heard of."}]
    if suiting or not alive:
        return list(_out_of_service(suiting or of_framework))
    return list(_obstacles(run, max(alive, key=lambda net: (len(net.part(run)), net.net))))


def _out_of_service(nets: Iterable[Net]) -> Iterator[Lack]:
    for net in nets:
        if net.draining:
            yield {"code": "net-draining", "detail": f"{net.net} takes no further run.", "nets": [net.net]}
        else:
            yield {"code": "net-silent", "detail": f"Nothing is heard of {net.net}.", "nets": [net.net]}


def _obstacles(run: Waiting, net: Net) -> Iterator[Lack]:
    """Why the net that comes nearest doesn't fit."""
    if away := sorted(run.trusts - net.trusts):
        detail = f"{len(run.trusts) - len(away)} of at least {run.minimum} Trusts are connected to {net.net}."
        yield {"code": "trusts-not-connected", "detail": detail, "nets": [net.net], "trusts": away}
    for trust in sorted(run.trusts & net.trusts):
        if lacking := net.lacking(run, trust):
            asked = run.resources.model_dump()
            listed = ", ".join(f"{name} {has} of {asked[name]}" for name, has in lacking.items())
            detail = f"{net.net} has less at {trust} than the run asks for: {listed}."
            yield {"code": "resources-missing", "detail": detail, "nets": [net.net], "trusts": [trust]}
