"""The process at a Trust that trains one run, started and ended by the Trust's FLARE client.

    python -m flip_flare.trainer_script --run RUN_ID

The platform's worker has prepared `<FLIP_FLARE_RUNS>/<RUN_ID>/` before: the run's data set and its record.
"""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path

import nvflare.client as flare

from flip_flare.job import checked_run_id
from flip_flare.wire import read_request, reply_model

RUNS_VARIABLE = "FLIP_FLARE_RUNS"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flip_flare.trainer_script", description="Train one run at a site.")
    parser.add_argument("--run", required=True, type=checked_run_id, help="the run's id")
    run_id = parser.parse_args().run
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    flare.init()  # before nnU-Net is imported, which takes seconds: FLARE waits for this
    serve(Path(os.environ[RUNS_VARIABLE]) / run_id, flare.get_site_name())


def serve(run_folder: Path, site: str) -> None:
    """Answer the hub's operations, one after the other, until FLARE ends the job."""
    from flip_nnunet.worker import Worker  # noqa: PLC0415 - see main

    worker = Worker(run_folder, site)
    while flare.is_running():
        model = flare.receive()
        if model is None:
            return
        request = read_request(model)
        flare.send(reply_model(worker.handle(request.operation, request.message)))


if __name__ == "__main__":
    main()
