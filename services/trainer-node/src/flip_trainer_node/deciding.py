"""How a controller decides about an attempt, from its own loop as from what it hears."""

from collections.abc import Callable, Iterable

from flip_chassis.work import Work
from flip_contracts.base import Message

from flip_trainer_node import domain, store
from flip_trainer_node.attempts import AttemptClosed, AttemptClosing, AttemptOver, TrustOmitted
from flip_trainer_node.domain import ATTEMPTS, Attempt

Decision = Callable[[Attempt], Iterable[Message]]


async def decide(work: Work, attempt_id: str, decision: Decision) -> None:
    """Record what `decision` says of the attempt as it stands, and tell others what follows, in one transaction."""
    async with store.deciding(work.db):
        async with work.on(ATTEMPTS, attempt_id) as it:
            it.record(*decision(it.state))
        for event in it.recorded:
            await _tell_others(work, it.state, event)


async def _tell_others(work: Work, attempt: Attempt, event: Message) -> None:
    match event:
        case AttemptClosing():
            for trust in sorted(attempt.run.trusts):
                await work.say(domain.end_run(attempt.run, forget=False), to=trust)
        case TrustOmitted(trust=trust):
            await work.say(domain.left_out(attempt, trust))
            await work.say(domain.end_run(attempt.run, forget=False), to=trust)
        case AttemptClosed() if missing := domain.unconfirmed(attempt, event):
            await work.say(missing)
        case AttemptOver() if ended := domain.told(attempt):
            await work.say(ended)
        case _:
            pass
