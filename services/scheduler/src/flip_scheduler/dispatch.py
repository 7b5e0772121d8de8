"""Who runs where: gives waiting runs to free nets, takes runs back from nets that fell silent, stops runs.

Every method takes the queue's lock before anything else: one decision at a time.
"""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime

from flip_chassis.database import UNREACHABLE, Connection
from flip_chassis.refusal import NotFound
from flip_chassis.service import Backbone
from flip_chassis.telemetry import log
from flip_chassis.work import Work
from flip_contracts.base import ModelId, NetName, ProjectId, RunId, TrustCode
from flip_contracts.files import ResultsPublished, ResultsRefused
from flip_contracts.scheduler import RunQueued
from flip_contracts.trainer_node import AttemptEnded, NetFree, NetHeartbeat, ResultsCollected

from flip_scheduler import domain, store
from flip_scheduler.domain import Again, Place
from flip_scheduler.fairness import Waiting, charge, in_fair_order
from flip_scheduler.matching import Net, pair
from flip_scheduler.settings import SchedulerSettings

_RETRY_S = 1.0
_SHORTEST_PAUSE_S = 0.05


@dataclass(frozen=True, slots=True)
class Dispatcher:
    """Decides what runs."""

    settings: SchedulerSettings

    async def queue(self, work: Work, queued: RunQueued) -> None:
        """Put a run into the queue; it leaves it at once where a free net fits."""
        async with store.deciding(work.db):
            came = queued.model_copy(update={"virtual_time": await store.virtual_time(work.db)})
            async with work.on(domain.RUNS, queued.run_id) as run:
                run.record(came)
            await self._give_runs(work)

    async def stop(self, work: Work, run_id: RunId) -> None:
        """Stop a run. Raises Refused where it has ended."""
        async with store.deciding(work.db):
            await self._stop(work, run_id)

    async def stop_all(
        self,
        work: Work,
        *,
        project_id: ProjectId | None = None,
        model_id: ModelId | None = None,
        trust: TrustCode | None = None,
    ) -> None:
        """Stop the runs of a project, of a model, or of a project with a certain Trust; those that ended stay."""
        async with store.deciding(work.db):
            for run_id in await store.runs_not_ended(work.db, project_id=project_id, model_id=model_id, trust=trust):
                await self._stop(work, run_id)

    async def _stop(self, work: Work, run_id: RunId) -> None:
        held = await store.net_of(work.db, run_id) is not None
        async with work.on(domain.RUNS, run_id) as run:
            run.record(domain.stop(run.state, held=held))

    async def hear_free_net(self, work: Work, event: NetFree) -> None:
        """Give the net its next run. A net that has not heard yet of its last assignment is not free."""
        async with store.deciding(work.db):
            known = await store.net(work.db, event.net)
            if known is not None and event.fencing < known["fencing"]:
                return
            await store.free_net(work.db, event, work.cause.time, work.cause.time + self.settings.lease)
            if known is not None and known["run_id"] is not None:
                async with work.on(domain.RUNS, known["run_id"]) as run:
                    run.record(*domain.release(run.state, event.fencing))
            await self._give_runs(work)

    async def hear_heartbeat(self, work: Work, event: NetHeartbeat) -> None:
        """Renew the lease; a free net that had been silent, or has a Trust back, may take a run, as may any free one
        once a run has rested."""
        async with store.deciding(work.db):
            await store.renew_lease(work.db, event, work.cause.time, work.cause.time + self.settings.lease)
            if event.state == "free":
                await self._give_runs(work)

    async def hear_end_of_attempt(self, work: Work, event: AttemptEnded) -> None:
        """Queue the run again, or end it; another net may take it at once."""
        async with store.deciding(work.db):
            await store.release_net(work.db, event.run_id, event.fencing)
            async with work.on(domain.RUNS, event.run_id) as run:
                run.record(*domain.end_attempt(run.state, event, await self._again(work, event.run_id)))
            await self._give_runs(work)

    async def hear_results_collected(self, work: Work, event: ResultsCollected) -> None:
        """The net has done its part: from here on its silence can't hurt the run."""
        async with store.deciding(work.db):
            if await store.release_net(work.db, event.run_id, event.fencing):
                async with work.on(domain.RUNS, event.run_id) as run:
                    run.record(*domain.release(run.state, event.fencing))

    async def hear_results(self, work: Work, event: ResultsPublished | ResultsRefused) -> None:
        """End the run with its results, or for want of them."""
        async with store.deciding(work.db), work.on(domain.RUNS, event.run_id) as run:
            match event:
                case ResultsPublished():
                    run.record(*domain.finish(run.state, event.digest))
                case ResultsRefused():
                    run.record(*domain.fail(run.state, "results-refused", f"The scan said: {event.reason}."))

    async def lose_silent_nets(self, work: Work) -> datetime | None:
        """Take runs from nets whose lease has run out; answers when the next one will."""
        async with store.deciding(work.db):
            for net in await store.silent_nets(work.db, work.cause.time):
                await store.lose_net(work.db, net["net"])
                async with work.on(domain.RUNS, net["run_id"]) as run:
                    again = await self._again(work, net["run_id"])
                    run.record(*domain.lose_net(run.state, net["fencing"], again))
            await self._give_runs(work)
            return await store.next_deadline(work.db)

    async def prioritise(self, work: Work, run_id: RunId, priority: int, reason: str) -> None:
        """Give the run another priority. Raises Refused where it has ended."""
        async with store.deciding(work.db), work.on(domain.RUNS, run_id) as run:
            run.record(*domain.prioritise(run.state, priority, reason))

    async def weigh(self, work: Work, project_id: ProjectId, weight: int, reason: str) -> None:
        """Give the project another weight; it counts from the next assignment."""
        async with store.deciding(work.db), work.on(domain.WEIGHTS, project_id) as share:
            share.record(*domain.weigh(share.state, project_id, weight, reason))

    async def drain(self, work: Work, net: NetName, *, draining: bool, reason: str) -> None:
        """Give the net no further run, or let it take runs again: one that waits for it goes at once."""
        async with store.deciding(work.db):
            async with work.on(domain.DRAINS, net) as state:
                state.record(*domain.drain(state.state, net, draining, reason))
            await self._give_runs(work)

    async def retire(self, work: Work, net: NetName, reason: str) -> None:
        """Strike the net off. Raises Refused where it has a run or could be given one, NotFound where it isn't there.

        Its fencing number goes with it, so that its next `NetFree` counts even where it has forgotten what it heard.
        The number of its next assignment is greater than all before: an older one that reaches it late is not taken.
        """
        async with store.deciding(work.db):
            [row] = [row for row in await store.nets(work.db, work.cause.time) if row["net"] == net] or [None]
            if row is None:
                raise NotFound("net-not-found", "There is no such net.")
            async with work.on(domain.DRAINS, net) as state:
                state.record(domain.retire(net, row["state"], reason, draining=state.state))
            await store.drop_net(work.db, net)

    async def queue_in_order(self, db: Connection, now: datetime) -> list[Waiting]:
        """The runs that wait, in the order in which they are given nets."""
        return in_fair_order(await store.waiting(db, now), await store.shares(db), now, self.settings.aging)

    async def _again(self, work: Work, run_id: RunId) -> Again:
        reached = await store.checkpoint(work.db, run_id)
        return Again(work.cause.time, reached, self.settings.most_tries, self.settings.pause)

    async def _give_runs(self, work: Work) -> None:
        while True:
            queue = await self.queue_in_order(work.db, work.cause.time)
            chosen = pair(queue, await store.catalogue(work.db, work.cause.time)) if queue else None
            if chosen is None:
                return
            await self._give(work, *chosen)

    async def _give(self, work: Work, waiting: Waiting, net: Net) -> None:
        share = (await store.shares(work.db))[waiting.project_id]
        fencing = await store.last_fencing(work.db) + 1
        place = Place(net.net, fencing, net.part(waiting), charge(waiting, share))
        checkpoint = await store.checkpoint(work.db, waiting.run_id)
        async with work.on(domain.RUNS, waiting.run_id) as run:
            assigned = domain.assign(run.state, place, checkpoint)
            run.record(assigned)
        await store.hold_net(work.db, assigned, work.cause.time + self.settings.lease)


async def watch_leases(stands: Backbone, dispatcher: Dispatcher) -> None:
    """Take runs from silent nets when their leases run out. Silence counts only while this process listens."""
    lease_s = dispatcher.settings.lease.total_seconds()
    pause_s = lease_s
    while True:
        await asyncio.sleep(pause_s)
        try:
            async with stands.working() as work:
                deadline = await dispatcher.lose_silent_nets(work)
        except UNREACHABLE as error:
            log.warning("Postgres is away; leases wait", reason=type(error).__name__)
            pause_s = _RETRY_S
        else:
            left_s = (deadline - datetime.now(UTC)).total_seconds() if deadline else lease_s
            pause_s = min(max(left_s, _SHORTEST_PAUSE_S), lease_s)
