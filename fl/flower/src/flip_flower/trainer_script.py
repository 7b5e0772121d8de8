"""The process at a Trust that trains one run, started and ended by the Trust's executor.

    python -m flip_flower.trainer_script --run RUN_ID --site KCH --channel FD

It speaks over the socket it inherits as file descriptor FD. Its environment is that of the Trust's node:
`flip_flower.site_settings`.
"""

from __future__ import annotations

import argparse
import json
import logging
from multiprocessing.connection import Connection

from flip_nnunet.attempt import checked_run_id
from flip_nnunet.job import Job
from flip_nnunet.message import Message
from flip_nnunet.site_settings import SiteSettings
from flip_nnunet.worker import Worker

from flip_flower.site_settings import site_settings


def serve(channel: Connection, run_id: str, settings: SiteSettings, site: str) -> None:
    """Answer one operation after the other until the executor closes the channel.

    A question is three frames: the operation's name, the job as JSON, the message. An answer is one.
    """
    worker: Worker | None = None
    while True:
        try:
            operation, job, message = (channel.recv_bytes() for _ in range(3))
        except EOFError:
            return
        worker = worker or make_worker(run_id, settings, site, job)
        channel.send_bytes(worker.handle(operation.decode(), Message.from_bytes(message)).to_bytes())


def make_worker(run_id: str, settings: SiteSettings, site: str, record: bytes) -> Worker:
    """The worker of a job. Raises ValueError if the job is malformed or of another run than the trainer's."""
    job = Job.model_validate(json.loads(record))
    if job.run_id != run_id:
        raise ValueError(f"run_id: the job is of run {job.run_id}, the trainer was started for {run_id}")
    return Worker(site, settings.data(run_id), settings.work(run_id), job, settings.minimum_cases)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m flip_flower.trainer_script", description="Train one run at a site."
    )
    parser.add_argument("--run", required=True, type=checked_run_id, help="the run's id")
    parser.add_argument("--site", required=True, help="the site's name in the federation")
    parser.add_argument("--channel", required=True, type=int, help="the file descriptor of the socket to speak over")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    serve(Connection(given.channel), given.run, site_settings(), given.site)


if __name__ == "__main__":
    main()
