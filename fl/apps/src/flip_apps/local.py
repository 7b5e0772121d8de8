"""An app at home: the platform's own algorithm over one site, which reads a researcher's files and not a Trust's.

    LOCAL_DEV=true DEV_DATAFRAME=cohort.csv DEV_IMAGES_DIR=images python -m flip_flare.local APP --work FOLDER

`python -m flip_flower.local` does the same for a Flower app. Events are printed as JSON, one a line; the results lie in
`FOLDER/hub/results`. There is no sandbox.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from flip import FLIP
from flip.data import ACCESSION
from flip_contracts.projects import Framework
from flip_nnunet.aggregation import TooFewContributions
from flip_nnunet.federation import Tell
from flip_nnunet.message import Answers, Json, Message, SitesFailed
from flip_nnunet.store import FolderStore

from flip_apps.federation import AppOutcome, federate_app
from flip_apps.files import files_of
from flip_apps.job import APP, AppJob
from flip_apps.site import AppWorker, Load

SITE = "LOCAL"
_PROJECT, _QUERY = "local", "0" * 64


class AppAtHome(AppWorker):
    """The site of a researcher's own machine: `flip` reads what the environment names, and nobody has approved it."""

    def __init__(self, work: Path, job: AppJob, load: Load, data: Json) -> None:
        super().__init__(SITE, work, work, job, 1, load, boxed=True)
        self._said = data

    def _check_data(self) -> None:
        """All of it is the researcher's own."""

    def _prepared(self) -> Json:
        return self._said

    def _tell_flip(self) -> None:
        """The environment has told it."""


class OneSite:
    """`flip_nnunet.federation.Sites` of one worker in this process."""

    def __init__(self, worker: AppWorker) -> None:
        self._worker = worker

    def names(self) -> list[str]:
        return [self._worker.site]

    def ask(self, operation: str, message: Message, sites: Sequence[str] | None = None) -> Answers:
        for site in self.names() if sites is None else sites:
            yield site, self._worker.handle(operation, message)


def train_at_home(framework: Framework, files: Mapping[str, bytes], work: Path, load: Load, tell: Tell) -> AppOutcome:
    """Train and validate an app, as many rounds as its configuration says.

    Raises ValueError if `flip` is not told where the data is, and what `federate_app` does.
    """
    frame = FLIP().get_dataframe(_PROJECT, _QUERY)
    data = {"cases": frame[ACCESSION].nunique(), "data": hashlib.sha256(frame.to_csv().encode()).hexdigest()}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    record = {"kind": APP, "framework": framework, "run_id": "local", "project_id": _PROJECT, "query": _QUERY}
    job = AppJob.model_validate(record | {"files": digests, "seed": 1, "minimum_sites": 1})
    sites = OneSite(AppAtHome(work / "site", job, load, data))
    return federate_app(sites, job, files, FolderStore(work / "hub"), tell)


def main(framework: Framework, load: Load) -> None:
    """The command line of a framework's `local` module."""
    parser = argparse.ArgumentParser(description="Train an app on this machine, on your own files.")
    parser.add_argument("app", type=Path, help="the app's folder")
    parser.add_argument("--work", required=True, type=Path, help="where everything is written")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    try:
        outcome = train_at_home(framework, files_of(given.app), given.work.resolve(), load, _print)
    except (SitesFailed, TooFewContributions, ValueError) as refused:
        parser.error(str(refused))
    _print({"kind": "finished", **outcome.facts()})


def _print(event: Json) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()
