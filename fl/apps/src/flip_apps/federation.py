"""The federated training of an app, once, for any framework: rounds, cross-site validation, results."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from flip_contracts.apps import AppConfig
from flip_nnunet.aggregation import Aggregate, aggregate
from flip_nnunet.contribution import ContributionExcluded, RoundTerms, check_tensors
from flip_nnunet.federation import Sites, Store, Tell, go_on_from, tell_exported, told_of
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

from flip_apps.answers import AnswerInvalid, Installed, installed, network, said_in_round, validated
from flip_apps.files import as_arrays, configuration
from flip_apps.job import AppJob
from flip_apps.results import AppResults, write_results
from flip_apps.site import NO_LOCAL_MODEL, Point
from flip_apps.ties import Ties, with_all_names

GLOBAL_MODEL, BEST_MODEL = "SRV_FL_global_model.pt", "SRV_best_FL_global_model.pt"
"""The hub's models in cross-site validation, by the names that NVFLARE has for them."""
_MOST_STEPS = 10**9
"""No site has done more iterations in a round; a larger number would only be there to outweigh the others."""

Validation = dict[str, dict[str, dict[str, float | None]]]
"""Metrics by the site that validated and by whose model it was; None for one that was not finite."""


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

    Raises `AppConfigInvalid`, `SitesFailed`, `WeightsUnfit`, `TooFewContributions` or the store's `RoundMissing`.
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
    names: list[str] = field(default_factory=list)
    """The sites that take part: all, but for those whose app failed before the first round, where that may be."""
    ties: Ties = field(default_factory=dict)
    best: Best | None = None
    installed: dict[str, Installed] = field(default_factory=dict)
    """What each site that takes part said of itself."""
    digests: dict[int, str] = field(default_factory=dict)
    latest: dict[str, dict[str, float]] = field(default_factory=dict)
    """Each site's last value of each metric in the round under way."""

    def run(self) -> AppOutcome:
        self.names = sorted(self.sites.names())
        self.tell({"kind": "preparing", "sites": list(self.names)})
        offers = self._install()
        weights = self._train(self._first_weights(), validating=offers.each_round)
        self.tell({"kind": "validating"})
        validation = self._cross_validate(weights, self.names if offers.local_models else [])
        self._let_go()
        results = self._export(weights, validation)
        tell_exported(self.tell, results)
        return AppOutcome(self.job.app_digest, weights_digest(weights), self.config.global_rounds, results)

    # --- training -------------------------------------------------------------------------------------------------

    def _install(self) -> Offers:
        """Give every site the app."""
        replies = self._usable("install", Message(arrays=as_arrays(self.files)), at_least=self._minimum_sites)
        self.names = list(replies)
        self.installed = {site: installed(reply) for site, reply in replies.items()}
        said = self.installed.values()
        return Offers(all(site.local_model for site in said), all(site.each_round for site in said))

    def _first_weights(self) -> Weights:
        """The network's first weights: those of the first site that can make them, for all. The others are left out."""
        failures: dict[str, SiteFailure] = {}
        while True:
            first = self.names[0]
            [(_, answer)] = self.sites.ask("initialise", Message(), [first])
            try:
                weights, self.ties = network(answer)
            except AnswerInvalid as invalid:
                failures[first] = invalid.failure
            else:
                return weights
            if len(self.names) <= self._minimum_sites:
                raise SitesFailed("initialise", failures)
            self._tell_ignored("initialise", first, failures[first])
            self.names.remove(first)

    def _train(self, weights: Weights, *, validating: bool) -> Weights:
        start, rounds = self.job.starting_round, self.config.global_rounds
        parameters = sum(array.size for array in weights.values())
        if start:
            weights, standing = go_on_from(self.store, start - 1, weights)
            self.best = standing.best
            self.digests[start - 1] = weights_digest(weights)
        if start < rounds:
            self.tell({"kind": "training-started", "round": start, "rounds": rounds, "parameters": parameters})
        for number in range(start, rounds):
            weights = self._round(number, weights, validating=validating)
        return weights

    def _validate_round(self, number: int, weights: Weights) -> dict[str, float]:
        """Let every site validate what a round gave, and tell the metrics as points at that round.

        Returns each site's score of these weights, if it told one.
        """
        scores: dict[str, float] = {}
        for site, answer in self._usable("validate", self._to_validate(GLOBAL_MODEL, weights)).items():
            for name, value in validated(answer).items():
                if value is None:
                    continue
                self._tell_point(number, site, Point(name, value, float(number)))
                if name == self.config.best_metric:
                    scores[site] = value
        return scores

    def _round(self, number: int, weights: Weights, *, validating: bool) -> Weights:
        started = time.monotonic()
        self.latest = {site: {} for site in self.names}
        scores: dict[str, float] = {}
        terms = RoundTerms(
            number, self.job.app_digest, weights, dict.fromkeys(self.names, _MOST_STEPS), self.job.largest_update
        )
        answers = self.sites.ask("train_round", Message({"round": number, "ties": self.ties}, weights), self.names)
        aggregated = aggregate(
            self._in_order_of_aggregator(self._heard(number, answers, scores)),
            terms,
            self.config.aggregation_weights,
            self._minimum_sites,
            lambda site, why: self._tell_excluded(number, site, why),
        )
        self.digests[number] = self.store.save_round(number, aggregated.weights)
        if validating:
            self._note_score(number, self._validate_round(number, aggregated.weights), aggregated)
        else:
            self._note_score(number - 1, scores, aggregated)
        standing = Standing(best=self.best)
        self.store.save_standing(number, standing)
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

    @property
    def _minimum_sites(self) -> int:
        """How many sites a run needs, and each of its rounds: all, unless errors may be ignored."""
        return (self.job.minimum_sites or 1) if self.config.ignore_result_error else len(self.sites.names())

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
        """Remember a round whose weights the sites scored higher than any before, each by its share of the mean.

        A trainer scores the weights that it was sent, which are those after the round before; -1 stands for the first.
        """
        counted = {site: share for site, share in aggregated.shares.items() if share > 0}
        if number < 0 or not counted.keys() <= scores.keys():
            return
        score = sum(share * scores[site] for site, share in sorted(counted.items()))
        if self.best is None or score > self.best.score:
            self.best = Best(round=number, digest=self.digests[number], score=score)

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
        found: Validation = {site: {} for site in self.names}
        self._validate(GLOBAL_MODEL, weights, found)
        if self.best is not None:
            self._validate(BEST_MODEL, self.store.load_round(self.best.round), found)
        for site in own:
            for model in self._usable("submit_model", Message({"ties": self.ties}), [site]).values():
                if self._is_of_this_network(site, model.arrays, weights):
                    self._validate(site, model.arrays, found)
        return found

    def _is_of_this_network(self, site: str, model: Weights, weights: Weights) -> bool:
        """Whether a site's own model is one that the others can load. It goes nowhere otherwise, and that is said."""
        try:
            check_tensors(model, weights)
        except ContributionExcluded as excluded:
            self._tell_ignored("submit_model", site, excluded.failure)
            return False
        return True

    def _validate(self, owner: str, weights: Weights, found: Validation) -> None:
        for site, answer in self._usable("validate", self._to_validate(owner, weights)).items():
            found[site][owner] = validated(answer)

    def _to_validate(self, owner: str, weights: Weights) -> Message:
        return Message({"owner": owner, "ties": self.ties}, weights)

    def _usable(
        self, operation: str, message: Message, sites: Sequence[str] | None = None, at_least: int = 0
    ) -> dict[str, Message]:
        """The answers of `sites` (None: all that take part) that can be used, by site.

        Raises `SitesFailed` for any other, unless errors may be ignored and `at_least` as many can be used.
        """
        answers = self.sites.ask(operation, message, self.names if sites is None else sites)
        if operation == "submit_model":
            answers = self._only_there(answers)
        checked = _only_valid(answers, _READ[operation]) if operation in _READ else answers
        if not self.config.ignore_result_error:
            return settle(operation, checked)
        usable: dict[str, Message] = {}
        failures: dict[str, SiteFailure] = {}
        for site, answer in checked:
            failure = failure_of(answer)
            if failure is None:
                usable[site] = answer
            else:
                failures[site] = failure
                self._tell_ignored(operation, site, failure)
        if len(usable) < at_least:
            raise SitesFailed(operation, failures)
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
                site: {
                    "cases": self.installed[site].cases,
                    "data": self.installed[site].data,
                    "cohort": self.job.cohorts.get(site),
                    "versions": self.installed[site].versions,
                }
                for site in self.names
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
        whole = with_all_names(weights, self.ties)
        best_whole = None if best is None else with_all_names(best, self.ties)
        return write_results(AppResults(whole, best_whole, validation, record), self.job, self.store.results())


def _all_then_by_site(answers: Answers) -> Answers:
    held = dict(answers)
    for site in sorted(held):
        yield site, held[site]


_READ: Mapping[str, Callable[[Message], object]] = {"install": installed, "validate": validated}
"""What reads an answer to an operation, or finds it invalid."""


def _only_valid(answers: Answers, read: Callable[[Message], object]) -> Answers:
    for site, answer in answers:
        try:
            if failure_of(answer) is None:
                read(answer)
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
