"""The federated training of an app, once, for any framework: rounds, cross-site validation, results."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from flip_contracts.apps import AppConfig
from flip_nnunet.aggregation import Aggregate, aggregate
from flip_nnunet.contribution import RoundTerms
from flip_nnunet.federation import Sites, Store, Tell, tell_exported, told_of
from flip_nnunet.message import (
    Answers,
    Json,
    Message,
    SiteFailure,
    SitesFailed,
    Weights,
    digest,
    failure_of,
    settle,
    weights_digest,
)
from flip_nnunet.seal import Results
from flip_nnunet.software import versions
from flip_nnunet.standing import Best, Standing

from flip_apps.answers import AnswerInvalid, said_in_round, validated
from flip_apps.files import as_arrays, configuration
from flip_apps.job import AppJob
from flip_apps.results import AppResults, write_results
from flip_apps.site import NO_LOCAL_MODEL, Point

GLOBAL_MODEL, BEST_MODEL = "SRV_FL_global_model.pt", "SRV_best_FL_global_model.pt"
"""The hub's models in cross-site validation, by the names that NVFLARE has for them."""
_OFFERED = ("local_model", "each_round")
_MOST_STEPS = 10**9
"""No site has done more iterations in a round; a larger number would only be there to outweigh the others."""

Validation = dict[str, dict[str, dict[str, float]]]
"""Metrics by the site that validated and by whose model it was."""


@dataclass(frozen=True, slots=True)
class AppOutcome:
    """What a finished run of an app left behind."""

    app_digest: str
    weights_digest: str
    rounds: int
    results: Results

    def facts(self) -> Json:
        """As it is told when the run has finished."""
        return {
            "app_digest": self.app_digest,
            "weights_digest": self.weights_digest,
            "rounds": self.rounds,
            **told_of(self.results),
        }


@dataclass(frozen=True, slots=True)
class Offers:
    """What the sites' apps can do beside training."""

    local_models: bool
    each_round: bool


def federate_app(sites: Sites, job: AppJob, files: Mapping[str, bytes], store: Store, tell: Tell) -> AppOutcome:
    """Train the app in `files` over `sites`, validate every model at every site and write the results.

    With `starting_round` the training goes on from the weights that `store` holds of the round before; where that was
    the last one, nothing is trained.

    Raises `AppConfigInvalid`, `SitesFailed`, `TooFewContributions` or the store's `RoundMissing`.
    """
    config = configuration(job, files)
    config.check_trusts(sites.names(), some_absent=job.minimum_sites is not None)
    return _AppFederation(sites, job, config, files, store, tell).run()


@dataclass(slots=True)
class _AppFederation:
    sites: Sites
    job: AppJob
    config: AppConfig
    files: Mapping[str, bytes]
    store: Store
    tell: Tell
    best: Best | None = None
    versions: dict[str, Json] = field(default_factory=dict)
    digests: dict[int, str] = field(default_factory=dict)
    latest: dict[str, dict[str, float]] = field(default_factory=dict)
    """Each site's last value of each metric in the round under way."""

    def run(self) -> AppOutcome:
        names = sorted(self.sites.names())
        self.tell({"kind": "preparing", "sites": names})
        offers = self._install()
        weights = self._train(self._first_weights(names[0]), validating=offers.each_round)
        self.tell({"kind": "validating"})
        validation = self._cross_validate(weights, names if offers.local_models else [])
        self._let_go()
        results = self._export(weights, validation)
        tell_exported(self.tell, results)
        return AppOutcome(self.job.app_digest, weights_digest(weights), self.config.global_rounds, results)

    # --- training -------------------------------------------------------------------------------------------------

    def _install(self) -> Offers:
        """Give every site the app."""
        replies = settle("install", self.sites.ask("install", Message(arrays=as_arrays(self.files))))
        self.versions = {site: reply.meta["versions"] for site, reply in replies.items()}
        return Offers(*(all(reply.meta[name] is True for reply in replies.values()) for name in _OFFERED))

    def _first_weights(self, first: str) -> Weights:
        """The network's first weights, of one site for all."""
        weights = settle("initialise", self.sites.ask("initialise", Message(), [first]))[first].arrays
        if not weights or not all(np.all(np.isfinite(array)) for array in weights.values()):
            failure = SiteFailure("not-finite", "its first weights are none, or hold a value that is no finite number")
            raise SitesFailed("initialise", {first: failure})
        return weights

    def _train(self, weights: Weights, *, validating: bool) -> Weights:
        start, rounds = self.job.starting_round, self.config.global_rounds
        parameters = sum(array.size for array in weights.values())
        if start:
            weights, self.best = self.store.load_round(start - 1), self.store.load_standing(start - 1).best
            self.digests[start - 1] = weights_digest(weights)
        if start < rounds:
            self.tell({"kind": "training-started", "round": start, "rounds": rounds, "parameters": parameters})
        for number in range(start, rounds):
            weights = self._round(number, weights, validating=validating)
        return weights

    def _validate_round(self, number: int, weights: Weights) -> None:
        """Let every site validate what a round gave, and tell the metrics as points at that round."""
        answers = self._usable("validate", self.sites.ask("validate", Message({"owner": GLOBAL_MODEL}, weights)))
        for site, answer in answers.items():
            for name, value in validated(answer).items():
                self._tell_point(number, site, Point(name, value, float(number)))

    def _round(self, number: int, weights: Weights, *, validating: bool) -> Weights:
        started, names = time.monotonic(), self.sites.names()
        self.latest = {site: {} for site in names}
        scores: dict[str, float] = {}
        terms = RoundTerms(
            number, self.job.app_digest, weights, dict.fromkeys(names, _MOST_STEPS), self.job.largest_update
        )
        answers = self.sites.ask("train_round", Message({"round": number}, weights))
        aggregated = aggregate(
            self._in_order_of_aggregator(self._heard(number, answers, scores)),
            terms,
            self.config.aggregation_weights,
            self._minimum_sites(len(names)),
            lambda site, why: self._tell_excluded(number, site, why),
        )
        self._note_score(number, scores, aggregated)
        self.digests[number] = self.store.save_round(number, aggregated.weights)
        standing = Standing(best=self.best)
        self.store.save_standing(number, standing)
        if validating:
            self._validate_round(number, aggregated.weights)
        self.tell(
            {
                "kind": "round-complete",
                "round": number,
                "rounds": self.config.global_rounds,
                "digest": self.digests[number],
                "standing": standing.model_dump(mode="json"),
                "sites": _shown(aggregated, self.latest),
                "seconds": round(time.monotonic() - started, 3),
            }
        )
        return aggregated.weights

    def _minimum_sites(self, sites: int) -> int:
        """How many contributions a round needs: all, unless errors may be ignored."""
        return (self.job.minimum_sites or 1) if self.config.ignore_result_error else sites

    def _in_order_of_aggregator(self, answers: Answers) -> Answers:
        """As they come, for a mean that keeps one model in memory; or all of them first, and then by site."""
        if self.config.aggregator == "InTimeAccumulateWeightedAggregator":
            return answers
        return _all_then_by_site(answers)

    def _heard(self, number: int, answers: Answers, scores: dict[str, float]) -> Answers:
        """The answers of a round; tells the points of metrics in each one as it comes, and notes its score."""
        for site, answer in answers:
            if failure_of(answer) is not None:
                yield site, answer
                continue
            try:
                points, score = said_in_round(answer)
            except AnswerInvalid as invalid:
                yield site, invalid.failure.as_message()
                continue
            for point in points:
                self._tell_point(number, site, point)
            if score is not None:
                scores[site] = score
            yield site, answer
            del answer  # or it would be kept until the next has arrived

    def _note_score(self, number: int, scores: Mapping[str, float], aggregated: Aggregate) -> None:
        """Scores are of the weights that were sent: those after the round before."""
        counted = {site: share for site, share in aggregated.shares.items() if share > 0}
        if number == 0 or not counted.keys() <= scores.keys():
            return
        score = sum(share * scores[site] for site, share in sorted(counted.items()))
        if self.best is None or score > self.best.score:
            self.best = Best(round=number - 1, digest=self.digests[number - 1], score=score)

    def _tell_point(self, number: int, site: str, point: Point) -> None:
        self.latest[site][point.label] = point.value
        self.tell(
            {
                "kind": "metric",
                "round": number,
                "site": site,
                "name": point.label,
                "value": point.value,
                "x": point.x,
                "axis": point.axis,
            }
        )

    def _tell_excluded(self, number: int, site: str, why: SiteFailure) -> None:
        self.tell(
            {
                "kind": "contribution-excluded",
                "round": number,
                "site": site,
                "reason": why.code,
                "detail": why.detail,
            }
        )

    # --- validation and results -----------------------------------------------------------------------------------

    def _cross_validate(self, weights: Weights, own: Sequence[str]) -> Validation:
        """Every model at every site: the last global one, the best, and that of each site in `own`.

        A site that has trained no round of this attempt has no model of its own, whatever the app's `local_model` would
        give: that is told, and the model left out.
        """
        found: Validation = {site: {} for site in sorted(self.sites.names())}
        self._validate(GLOBAL_MODEL, weights, found)
        if self.best is not None:
            self._validate(BEST_MODEL, self.store.load_round(self.best.round), found)
        for site in own:
            submitted = self._usable(
                "submit_model", self._only_there(self.sites.ask("submit_model", Message(), [site]))
            )
            if site in submitted:
                self._validate(site, submitted[site].arrays, found)
        return found

    def _validate(self, owner: str, weights: Weights, found: Validation) -> None:
        answers = self._usable("validate", self.sites.ask("validate", Message({"owner": owner}, weights)))
        for site, answer in answers.items():
            found[site][owner] = validated(answer)

    def _usable(self, operation: str, answers: Answers) -> dict[str, Message]:
        """The answers that can be used. Raises `SitesFailed` for any other, unless errors may be ignored."""
        checked = _only_valid(answers) if operation == "validate" else answers
        if not self.config.ignore_result_error:
            return settle(operation, checked)
        usable: dict[str, Message] = {}
        for site, answer in checked:
            failure = failure_of(answer)
            if failure is None:
                usable[site] = answer
            else:
                self._tell_ignored(operation, site, failure)
        return {site: usable[site] for site in sorted(usable)}

    def _only_there(self, submitted: Answers) -> Answers:
        """The answers without those of sites that have no model of their own; that is told of them."""
        for site, answer in submitted:
            failure = failure_of(answer)
            if failure is not None and failure.code == NO_LOCAL_MODEL:
                self._tell_ignored("submit_model", site, failure)
            else:
                yield site, answer

    def _tell_ignored(self, operation: str, site: str, why: SiteFailure) -> None:
        self.tell({"kind": "result-ignored", "operation": operation, "site": site, "reason": why.code})

    def _let_go(self) -> None:
        """Tell every site that it may stop. One that does not answer takes nothing from what was trained."""
        for _ in self.sites.ask("stop", Message()):
            pass

    def _export(self, weights: Weights, validation: Validation) -> Results:
        record: Json = {
            "format": 2,
            "job": self.job.model_dump(mode="json", exclude={"cohorts"}),
            "config": self.config.model_dump(mode="json", by_alias=True),
            "sites": {
                site: {"cohort": self.job.cohorts.get(site), "versions": installed}
                for site, installed in self.versions.items()
            },
            "hub": {"versions": versions()},
            "rounds": {str(number): self.digests[number] for number in sorted(self.digests)},
            "best": None if self.best is None else self.best.model_dump(mode="json"),
            "digests": {
                "app": self.job.app_digest,
                "weights": weights_digest(weights),
                "validation": digest(validation),
            },
        }
        best = None if self.best is None else self.store.load_round(self.best.round)
        return write_results(AppResults(weights, best, validation, record), self.job, self.store.results())


def _all_then_by_site(answers: Answers) -> Answers:
    held = dict(answers)
    for site in sorted(held):
        yield site, held[site]


def _only_valid(answers: Answers) -> Answers:
    for site, answer in answers:
        try:
            if failure_of(answer) is None:
                validated(answer)
        except AnswerInvalid as invalid:
            yield site, invalid.failure.as_message()
        else:
            yield site, answer


def _shown(aggregated: Aggregate, latest: Mapping[str, Mapping[str, float]]) -> Json:
    """What is told of each site whose contribution counts in a round; of its metrics the latest values.

    Every point has a line of its own.
    """
    return {
        site: {
            "steps": checked.contribution.cases,
            "weight": aggregated.shares[site],
            "update": checked.update,
            "metrics": dict(latest[site]),
            "seconds": checked.contribution.seconds,
        }
        for site, checked in aggregated.contributions.items()
    }
