"""What a Trust's cohort service hears: the hub's commands. They become jobs; `runner.py` does them."""

from flip_chassis.database import Connection
from flip_chassis.handlers import projection, reaction
from flip_contracts.cloudevents import Envelope
from flip_contracts.cohort import FreezeCohort, RunCohortQuery, TrustAnsweredQuery

from flip_cohort import trust_store


@projection
async def remember_query(command: RunCohortQuery, db: Connection) -> None:
    await trust_store.save_query(db, command)


@reaction
async def take_query(command: RunCohortQuery, db: Connection, said: Envelope) -> None:
    await trust_store.add_job(db, "answer", command, command.deadline, said)


@reaction
async def take_freeze(command: FreezeCohort, db: Connection, said: Envelope) -> None:
    await trust_store.add_job(db, "freeze", command, None, said)


@projection
async def remember_outcome(report: TrustAnsweredQuery, db: Connection) -> None:
    await trust_store.save_outcome(db, report.project_id, report.query_version, report.outcome)


handlers = (remember_query, take_query, take_freeze, remember_outcome)
