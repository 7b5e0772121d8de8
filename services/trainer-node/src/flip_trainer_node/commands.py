"""What a net's worker hears at a Trust: each command becomes a task."""

from flip_chassis.handlers import Handler, reaction
from flip_chassis.work import Work
from flip_contracts.base import NetName
from flip_contracts.imaging import DeleteImages
from flip_contracts.trainer_node import EndRun, PrepareRun

from flip_trainer_node import store


@reaction
async def forget_soon(event: DeleteImages, work: Work) -> None:
    await store.forget_project(work.db, event)


def handlers(net: NetName) -> tuple[Handler, ...]:
    """Everything that the worker of this net hears."""

    async def prepare_later(event: PrepareRun, work: Work) -> None:
        if event.net == net:
            await store.add_task(work.db, "prepare", event)

    async def end_soon(event: EndRun, work: Work) -> None:
        if event.net == net:
            await store.add_task(work.db, "end", event)

    return (reaction(prepare_later), reaction(end_soon), forget_soon)
