"""The federated algorithm, once, for any transport."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from flip_nnunet.aggregation import Aggregate, aggregate
from flip_nnunet.contribution import ContributionExcluded, RoundTerms, check_tensors
from flip_nnunet.dataset import canonical_description
from flip_nnunet.differences import differences
from flip_nnunet.export import Checkpoint, TrainedModel, export
from flip_nnunet.fingerprint import Fingerprint, federated_fingerprint
from flip_nnunet.job import Job
from flip_nnunet.message import (
    MALFORMED,
    Answers,
    Json,
    Message,
    SiteFailure,
    SitesFailed,
    Weights,
    digest,
    settle,
    weights_digest,
)
from flip_nnunet.model import foreground
from flip_nnunet.seal import Results
from flip_nnunet.software import versions
from flip_nnunet.standing import Best, Standing, mean_dice


class Sites(Protocol):
    """The sites of one run, behind whatever carries messages to them."""

    def names(self) -> list[str]:
        """The sites that take part."""
        ...

    def ask(self, operation: str, message: Message, sites: Sequence[str] | None = None) -> Answers:
        """Ask `sites` (None: all) at once, and give each one's answer as it comes; exactly one a site.

        Each site answers with `Worker.handle(operation, message)`; a `SiteFailure` as a message with the code
        `NO_ANSWER` stands for the answer of a site that ended or cannot be reached. An answer that was given is not
        kept here. Whoever closes the answers before the last has come asks nothing more.
        """
        ...


class Store(Protocol):
    """What the hub keeps of one run."""

    def save_round(self, number: int, weights: Weights) -> str:
        """Keep the aggregated weights of a round; returns their digest (`message.weights_digest`)."""
        ...

    def load_round(self, number: int) -> Weights:
        """The weights that `save_round` kept. Raises `RoundMissing`."""
        ...

    def save_standing(self, number: int, standing: Standing) -> None:
        """Keep how the run stands after a round."""
        ...

    def load_standing(self, number: int) -> Standing:
        """What `save_standing` kept; an empty standing if it kept none."""
        ...

    def save_record(self, name: str, record: Json) -> None:
        """Keep a JSON record of the run, such as `fingerprint` or `plan`."""
        ...

    def earlier_results(self) -> Path:
        """The zip with the results of the earlier run that the job names. Raises `ModelMissing`."""
        ...

    def results(self) -> Path:
        """The folder in which the results are made."""
        ...


Tell = Callable[[Json], None]
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a finished run left behind."""

    plan_digest: str
    weights_digest: str
    cases: dict[str, int]
    rounds: int
    results: Results

    def facts(self) -> Json:
        """As it is told when the run has finished."""
        return {
            "plan_digest": self.plan_digest,
            "weights_digest": self.weights_digest,
            "cases": self.cases,
            "rounds": self.rounds,
            **told_of(self.results),
        }


def told_of(results: Results) -> Json:
    """What the end of a run tells of its results."""
    return {
        "archive": str(results.archive),
        "archive_sha256": results.sha256,
        "seal_sha256": results.seal_sha256,
    }


def tell_exported(tell: Tell, results: Results) -> None:
    """Say that the results are made."""
    archive = results.archive
    tell(
        {
            "kind": "exported",
            "archive": archive.name,
            "sha256": results.sha256,
            "bytes": archive.stat().st_size,
            "seal_sha256": results.seal_sha256,
        }
    )


class JobUnfit(Exception):
    """The job cannot be done by these sites; the message names its field."""

    code = "job-unfit"


class RecordsDiffer(Exception):
    """Records that must be equal at all sites are not. `differences`: where, and each site's value."""

    code = "records-differ"

    def __init__(self, records: Mapping[str, Json]) -> None:
        self.differences = differences(records)
        super().__init__(f"the sites differ at {', '.join(found['path'] for found in self.differences)}")


class SchemasDiffer(RecordsDiffer):
    """The sites' data sets have other channels, labels or files."""

    code = "schemas-differ"


class PlansDiffer(RecordsDiffer):
    """The sites' plans are not identical, so their networks or their data are not either."""

    code = "plans-differ"


class WeightsUnfit(Exception):
    """The weights to go on from are not those of the network that is trained now; the message says where."""

    code = "weights-unfit"


def go_on_from(store: Store, number: int, network: Weights) -> tuple[Weights, Standing]:
    """The weights after a round, and how the run stood after it.

    Raises `WeightsUnfit` where they are not the network's, in names, shapes and types, and the store's `RoundMissing`.
    """
    weights = store.load_round(number)
    try:
        check_tensors(weights, network)
    except ContributionExcluded as unfit:
        raise WeightsUnfit(str(unfit)) from None
    return weights, store.load_standing(number)


def federate(sites: Sites, job: Job, store: Store, tell: Tell) -> Outcome:
    """Fingerprint, plan, preprocess, train and export `job` over `sites`.

    As long as the job's minimum of sites remains, one that fails before the first round is told and left out, and what
    was found with it is found again without it; in the rounds a contribution that cannot count is told and left out of
    its round. A run that resumes needs all of its sites up to there: its weights are of their plan.

    With `starting_fed_round` the training goes on from the weights that `store` holds of the round before; all the
    rest is found again, and the sites reuse what they have preprocessed. Where that round was the last one, nothing is
    trained, and the results are those of a run that was never interrupted. Raises `JobUnfit`, `SitesFailed`,
    `SchemasDiffer`, `PlansDiffer`, `WeightsUnfit`, `TooFewContributions` or the store's `RoundMissing`; the sites keep
    their state for another attempt.
    """
    return _Federation(sites, job, store, tell).run()


@dataclass(frozen=True, slots=True)
class _Cohort:
    """The sites' data sets, seen together."""

    cases: dict[str, int]
    schema: Json
    data: dict[str, str]
    """The digest of each site's data set."""
    versions: dict[str, Json]

    @property
    def total(self) -> int:
        return sum(self.cases.values())


@dataclass(frozen=True, slots=True)
class _Trained:
    """The last round's weights, the digest of each round's from that which it went on from, and the best round."""

    weights: Weights
    digests: dict[int, str]
    best: Best | None


@dataclass(frozen=True, slots=True)
class _Network:
    """The planned network before its first round."""

    weights: Weights
    ties: dict[str, str]
    mirroring_axes: list[int] | None


@dataclass(frozen=True, slots=True)
class _Prepared:
    """All that comes before the first round."""

    cohort: _Cohort
    fingerprint: Fingerprint
    plan: Json
    network: _Network


class _Federation:
    def __init__(self, sites: Sites, job: Job, store: Store, tell: Tell) -> None:
        self._sites = sites
        self._job = job
        self._store = store
        self._tell = tell
        self._names = sorted(sites.names())

    def run(self) -> Outcome:
        self._check_job()
        self._store.save_record("job", self._job.model_dump(mode="json"))
        prepared = self._prepare()
        trained = self._train(prepared)
        self._let_go()
        results = self._export(prepared, trained)
        tell_exported(self._tell, results)
        final = weights_digest(trained.weights)
        return Outcome(digest(prepared.plan), final, prepared.cohort.cases, self._job.payload.num_rounds, results)

    def _prepare(self) -> _Prepared:
        while True:
            try:
                cohort = self._describe()
                fingerprint = self._fingerprint(cohort)
                plan = self._plan(cohort, fingerprint)
                self._preprocess()
                return _Prepared(cohort, fingerprint, plan, self._initialise())
            except SitesFailed as failed:
                self._leave_out(failed)

    def _leave_out(self, failed: SitesFailed) -> None:
        """Go on without the sites that failed. Raises `failed` where that may not be."""
        left = [site for site in self._names if site not in failed.failures]
        needed = len(self._names) if self._job.minimum_sites is None else self._job.minimum_sites
        counts = any(self._job.aggregation_weights.get(site, 1.0) for site in left)
        if self._job.payload.starting_fed_round or len(left) < needed or not counts:
            raise failed
        for site, why in failed.failures.items():
            self._tell({"kind": "site-left-out", "site": site, "reason": why.code, "operation": failed.operation})
        self._names = left

    def _ask(self, operation: str, message: Message, sites: Sequence[str] | None = None) -> dict[str, Message]:
        return settle(operation, self._sites.ask(operation, message, self._names if sites is None else sites))

    def _let_go(self) -> None:
        """Tell every site that it may stop. One that does not answer takes nothing from what was trained."""
        for _ in self._sites.ask("stop", Message(), self._names):
            pass

    def _check_job(self) -> None:
        try:
            self._job.check_sites(self._names)
        except ValueError as error:
            raise JobUnfit(str(error)) from None

    def _describe(self) -> _Cohort:
        self._tell({"kind": "preparing", "sites": self._names})
        replies = self._ask("describe", Message())
        texts = {site: str(reply.meta["schema"]) for site, reply in replies.items()}
        schemas: dict[str, Json] = {site: json.loads(text) for site, text in texts.items()}
        if len(set(texts.values())) > 1:
            ordered = {site: {**schema, "order_of_labels": list(schema["labels"])} for site, schema in schemas.items()}
            raise SchemasDiffer(ordered)
        return _Cohort(
            cases=_declared_cases(replies),
            schema=schemas[self._names[0]],
            data=_declared_data(replies),
            versions={site: replies[site].meta["versions"] for site in self._names},
        )

    def _fingerprint(self, cohort: _Cohort) -> Fingerprint:
        self._tell({"kind": "fingerprint", "cases": cohort.cases})
        fingerprint = federated_fingerprint(
            lambda operation, meta: self._ask(operation, Message(meta)),
            cohort.total,
            len(cohort.schema["channel_names"]),
            self._job.profile.intensity_voxels,
        )
        self._store.save_record("fingerprint", fingerprint.as_json())
        return fingerprint

    def _plan(self, cohort: _Cohort, fingerprint: Fingerprint) -> Json:
        question = Message({"fingerprint": fingerprint.as_json(), "cases": cohort.total})
        plans = {site: reply.meta["plan"] for site, reply in self._ask("plan", question).items()}
        if len({digest(plan) for plan in plans.values()}) > 1:
            raise PlansDiffer(plans)
        plan = plans[self._names[0]]
        self._store.save_record("plan", plan)
        configuration = plan["configurations"][self._job.payload.model_configuration]
        shown = {key: configuration[key] for key in ("patch_size", "batch_size", "spacing")}
        self._tell({"kind": "plan-agreed", "sites": self._names, "digest": digest(plan), **shown})
        return plan

    def _preprocess(self) -> None:
        self._tell({"kind": "preprocessing"})
        replies = self._ask("preprocess", Message())
        done = {site: {"reused": reply.meta["reused"], "seconds": reply.meta["seconds"]}
                for site, reply in replies.items()}  # fmt: skip
        self._tell({"kind": "preprocessed", "sites": done})

    def _initialise(self) -> _Network:
        first = self._names[0]
        reply = self._ask("initialise", Message(), [first])[first]
        if not all(np.all(np.isfinite(array)) for array in reply.arrays.values()):
            failure = SiteFailure("not-finite", "its first weights hold a value that is not a finite number")
            raise SitesFailed("initialise", {first: failure})
        return _Network(reply.arrays, reply.meta["ties"], reply.meta["mirroring_axes"])

    def _train(self, prepared: _Prepared) -> _Trained:
        payload, cohort, network = self._job.payload, prepared.cohort, prepared.network
        start, plan = payload.starting_fed_round, digest(prepared.plan)
        weights, standing = network.weights, Standing()
        digests: dict[int, str] = {}
        if start:
            weights, standing = go_on_from(self._store, start - 1, network.weights)
            digests[start - 1] = weights_digest(weights)
        if start < payload.num_rounds:
            parameters = sum(array.size for array in network.weights.values())
            started = {"round": start, "rounds": payload.num_rounds, "parameters": parameters}
            self._tell({"kind": "training-started", **started})
        structures = list(foreground(cohort.schema))
        for number in range(start, payload.num_rounds):
            terms = RoundTerms(number, plan, weights, cohort.cases, self._job.largest_update)
            weights, digests[number], standing = self._round(terms, standing, structures)
        return _Trained(weights, digests, standing.best)

    def _round(self, terms: RoundTerms, before: Standing, structures: Sequence[str]) -> tuple[Weights, str, Standing]:
        started = time.monotonic()
        aggregated = aggregate(
            self._sites.ask("train_round", Message({"round": terms.number}, terms.weights), self._names),
            terms,
            self._job.aggregation_weights,
            self._job.minimum_sites or len(self._names),
            lambda site, why: self._tell_excluded(terms.number, site, why),
        )
        saved = self._store.save_round(terms.number, aggregated.weights)
        standing = before.after(terms.number, saved, mean_dice(aggregated))
        self._store.save_standing(terms.number, standing)
        self._tell(
            {
                "kind": "round-complete",
                "round": terms.number,
                "rounds": self._job.payload.num_rounds,
                "digest": saved,
                "standing": standing.model_dump(mode="json"),
                "sites": _shown(aggregated, structures),
                "seconds": round(time.monotonic() - started, 3),
            }
        )
        return aggregated.weights, saved, standing

    def _tell_excluded(self, number: int, site: str, why: SiteFailure) -> None:
        self._tell(
            {
                "kind": "contribution-excluded",
                "round": number,
                "site": site,
                "reason": why.code,
                "detail": why.detail,
            }
        )

    def _export(self, prepared: _Prepared, trained: _Trained) -> Results:
        cohort, network = prepared.cohort, prepared.network
        description = canonical_description(cohort.schema, cohort.total, self._job.dataset_name)
        final = Checkpoint(self._job.payload.num_rounds - 1, trained.weights)
        best = (
            None if trained.best is None else Checkpoint(trained.best.round, self._store.load_round(trained.best.round))
        )
        fingerprint = prepared.fingerprint.content
        model = TrainedModel(prepared.plan, description, fingerprint, final, best, network.ties, network.mirroring_axes)
        sites = {
            site: {
                "cases": cohort.cases[site],
                "data": cohort.data[site],
                "cohort": self._job.cohorts.get(site),
                "versions": cohort.versions[site],
            }
            for site in self._names
        }
        record: Json = {
            "format": 2,
            "job": self._job.model_dump(mode="json", exclude={"cohorts"}),
            "sites": sites,
            "hub": {"versions": versions()},
            "rounds": {str(number): told for number, told in sorted(trained.digests.items())},
            "best": None if trained.best is None else trained.best.model_dump(mode="json"),
        }
        return export(model, self._job, record, self._store.results())


def _declared_cases(replies: Mapping[str, Message]) -> dict[str, int]:
    """Each site's number of cases, which bounds its weight. Raises `SitesFailed` where that is none."""
    cases = {site: reply.meta.get("cases") for site, reply in replies.items()}
    declared = {site: number for site, number in cases.items() if type(number) is int and number > 0}
    if len(declared) < len(cases):
        wrong = SiteFailure(MALFORMED, "cases: must be a whole number above 0")
        raise SitesFailed("describe", dict.fromkeys(cases.keys() - declared.keys(), wrong))
    return declared


def _declared_data(replies: Mapping[str, Message]) -> dict[str, str]:
    """The digest of each site's data set. Raises `SitesFailed` where that is none."""
    digests = {site: str(reply.meta.get("data")) for site, reply in replies.items()}
    if wrong := [site for site, declared in digests.items() if not _SHA256.fullmatch(declared)]:
        raise SitesFailed("describe", dict.fromkeys(wrong, SiteFailure(MALFORMED, "data: must be a SHA-256")))
    return digests


def _shown(aggregated: Aggregate, structures: Sequence[str]) -> Json:
    """What is told of each site whose contribution counts in a round; metrics by class with their structures' names."""
    return {
        site: {
            "cases": checked.contribution.cases,
            "weight": aggregated.shares[site],
            "update": checked.update,
            "metrics": _named(checked.contribution.metrics, structures),
            "state": checked.contribution.state,
            "seconds": checked.contribution.seconds,
        }
        for site, checked in aggregated.contributions.items()
    }


def _named(metrics: Mapping[str, float | list[float | None] | None], structures: Sequence[str]) -> Json:
    """Metrics with those by class as `{structure: value}`. nnU-Net has classes, or regions, in the schema's order.

    What a site tells beyond the structures that there are has no name, and is not told.
    """
    return {
        name: dict(zip(structures, value, strict=False)) if isinstance(value, list) else value
        for name, value in metrics.items()
    }
