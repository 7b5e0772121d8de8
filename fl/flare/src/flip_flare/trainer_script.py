"""The process at a Trust that trains one run, started and ended by the Trust's FLARE client.

    python -m flip_flare.trainer_script --run RUN_ID

Its environment is that of the client: `flip_flare.site_settings`.
"""

from __future__ import annotations

import argparse
import logging

import nvflare.client as flare
from flip_nnunet.attempt import checked_run_id

from flip_flare.site_settings import site_settings


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flip_flare.trainer_script", description="Train one run at a site.")
    parser.add_argument("--run", required=True, type=checked_run_id, help="the run's id")
    run_id = parser.parse_args().run
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    settings = site_settings()
    flare.init()
    from flip_flare.trainer import serve  # noqa: PLC0415 - imports nnU-Net for seconds, in which FLARE need not wait

    serve(run_id, settings, flare.get_site_name())


if __name__ == "__main__":
    main()
