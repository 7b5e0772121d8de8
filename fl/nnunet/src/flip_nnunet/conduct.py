"""Conducts one attempt at the hub, over whatever carries messages to the sites, and tells how it goes."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any

from flip_nnunet.aggregation import TooFewContributions
from flip_nnunet.attempt import Attempt
from flip_nnunet.events import EventLog
from flip_nnunet.federation import Outcome, RecordsDiffer, Sites, Store, Tell, federate
from flip_nnunet.files import is_disk_full
from flip_nnunet.inference import InferenceOutcome, infer
from flip_nnunet.job import AnyJob, InferenceJob, read_job
from flip_nnunet.message import NO_ANSWER, Json, SiteFailure, SitesFailed
from flip_nnunet.store import FolderStore

SILENT = SiteFailure(NO_ANSWER, "the site's trainer ended or the site cannot be reached")
"""Stands for the answer of a site that gives none."""


class Interrupted(Exception):
    """The attempt ended from outside, by an abort or a broken part of the net; another attempt may well succeed."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        super().__init__(detail)


_MOST_DIFFERENCES = 100
_DISK_FULL = Interrupted("hub-disk-full", "the disk of the run's folder at the hub is full")


def conduct(attempt: Attempt, sites_for: Callable[[AnyJob], Sites], silent: Collection[str]) -> None:
    """Run one attempt and tell what happens in `<run_folder>/events.jsonl`; weights go to `<run_folder>/rounds/`.

    The last event of an attempt that was not killed is `finished`, `interrupted` (worth another attempt) or `failed`
    (it would fail again); the latter two have a `reason` code and a `detail`. One that failed by no site's failure also
    has the hub's `words` for it, and in `differences` the places where records differ that must be equal. Raises what
    ended it.
    `silent` has at any time the sites that left the last operation unanswered; the sites keep it up to date.
    """

    def work(tell: Tell) -> dict[str, Any]:
        job = read_job(attempt.job)
        return run(sites_for(job), job, FolderStore(attempt.run_folder), tell).facts()

    report(attempt, work, silent)


def report(attempt: Attempt, work: Callable[[Tell], dict[str, Any]], silent: Collection[str]) -> None:
    """Do an attempt's `work`, which gives the facts of its outcome, and tell its beginning and its end as `conduct`."""
    with EventLog(attempt.run_folder, attempt.number) as events:
        events.tell({"kind": "started", "sites": list(attempt.trusts)})
        try:
            facts = work(events.tell)
        except SystemExit:  # how a framework ends the process of an aborted run, if it notices first
            events.tell(_ending(Interrupted("job-aborted", "the framework ended the run's process"), silent))
            raise
        except Exception as error:
            full = is_disk_full(error, attempt.run_folder)
            events.tell(_ending(_DISK_FULL if full else error, silent))
            raise
        events.tell({"kind": "finished"} | facts)


def run(sites: Sites, job: AnyJob, store: Store, tell: Tell) -> Outcome | InferenceOutcome:
    """Do what the job asks over these sites: see `federation.federate` and `inference.infer`."""
    if isinstance(job, InferenceJob):
        return infer(sites, job, store, tell)
    return federate(sites, job, store, tell)


def _ending(error: Exception, silent: Collection[str]) -> dict[str, Any]:
    """The event that tells why an attempt did not finish."""
    if isinstance(error, Interrupted):
        return {"kind": "interrupted", "reason": error.reason, "detail": str(error)}
    if silent:
        return {
            "kind": "interrupted",
            "reason": "sites-silent",
            "sites": _as_facts(dict.fromkeys(sorted(silent), SILENT)),
            "detail": str(error),
        }
    if isinstance(error, SitesFailed):
        return {
            "kind": "failed",
            "reason": "sites-failed",
            "operation": error.operation,
            "sites": _as_facts(error.failures),
            "detail": str(error),
        }
    if isinstance(error, TooFewContributions):
        return {
            "kind": "failed",
            "reason": error.code,
            "operation": "train_round",
            "sites": _as_facts(error.excluded),
            "detail": str(error),
        }
    code = getattr(error, "code", None)
    return {
        "kind": "failed",
        "reason": code or "internal-error",
        "detail": f"{type(error).__name__}: {error}",
        "words": str(error) if code else type(error).__name__,
        "differences": _as_text(error.differences) if isinstance(error, RecordsDiffer) else [],
    }


def _as_text(differences: list[Json]) -> list[Json]:
    """The first differences, each site's value as JSON: a site's record may hold what an event can't, such as NaN."""
    return [
        {"path": each["path"], "values": {site: json.dumps(value) for site, value in each["values"].items()}}
        for each in differences[:_MOST_DIFFERENCES]
    ]


def _as_facts(failures: Mapping[str, SiteFailure]) -> dict[str, dict[str, str]]:
    return {site: {"code": failure.code, "detail": failure.detail} for site, failure in failures.items()}
