"""An app is trained as its configuration says, every contribution checked, and its results say what was found."""

from __future__ import annotations

import io
import json
import weakref
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flip.app import DATA_VARIABLE, RESOURCES_VARIABLE
from flip_apps.conduct import conduct_app
from flip_apps.federation import AppOutcome, federate_app
from flip_apps.job import AppJob
from flip_apps.site import Place, Point, Trained
from flip_apps.testing import QUERY, AppsHere, app_job, give_files, write_project
from flip_contracts.apps import AppConfigInvalid
from flip_nnunet.aggregation import TooFewContributions
from flip_nnunet.attempt import Attempt
from flip_nnunet.events import read_events
from flip_nnunet.message import Answers, Message, SitesFailed, Weights
from flip_nnunet.store import FolderStore

TRUSTS = ("KCH", "UCLH")
GLOBAL, BEST = "SRV_FL_global_model.pt", "SRV_best_FL_global_model.pt"


class CodeOfTheAppFailed(Exception):
    """What a researcher's code raises."""


@dataclass
class Adds:
    """An app whose training adds a number to every weight, so that any mean can be computed by hand."""

    place: Place
    amount: float = 1.0
    steps: int = 1
    fails_in: int | None = None
    scores: Sequence[float] = ()
    spoil: Callable[[Weights], Weights] | None = None
    label: str = "LOSS"
    validates: bool = True
    dice: float | None = None
    fails_to_load: bool = False
    first: float | None = 0.0
    names: Sequence[str] = ("w",)
    """Those of its one tensor."""
    submits: Callable[[Weights], Weights] | None = None
    random: bool = False
    has_local_model: bool = True
    is_validated_each_round: bool = False
    mine: Weights = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.fails_to_load:
            raise CodeOfTheAppFailed("patient ACC00001")

    def first_weights(self) -> dict[str, torch.Tensor]:
        if self.first is None:
            raise CodeOfTheAppFailed("patient ACC00001")
        one = torch.full((4,), self.first)
        return {name: one.detach() for name in self.names}

    def train(self, number: int, weights: Weights) -> Trained:
        if number == self.fails_in:
            raise CodeOfTheAppFailed("patient ACC00001")
        amount = np.random.normal(self.amount) if self.random else self.amount
        self.mine = {name: np.asarray(array + amount, array.dtype) for name, array in weights.items()}
        new = self.spoil(self.mine) if self.spoil else self.mine
        score = self.scores[number] if self.scores else None
        return Trained(new, self.steps, [Point(self.label, float(number), float(number))], score)

    def local_model(self) -> Weights:
        return self.submits(self.mine) if self.submits else self.mine

    def validate(self, owner: str, weights: Weights) -> dict[str, float]:
        if not self.validates:
            raise CodeOfTheAppFailed("patient ACC00001")
        dice = {} if self.dice is None else {"dice": self.dice}
        return {"mean": float(weights["w"].mean())} | dice

    def close(self) -> None:
        return


@dataclass
class Federation:
    """An app at some sites in this process."""

    folder: Path
    config: Mapping[str, Any]
    apps: Mapping[str, Mapping[str, Any]]
    told: list[dict[str, Any]] = field(default_factory=list)
    places: dict[str, Place] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.files = {
            "trainer.py": b"# not run here",
            "validator.py": b"",
            "config.json": json.dumps(self.config).encode(),
        }
        for seed, site in enumerate(self.apps):
            if not (self.folder / "data" / site / "run").exists():
                write_project(self.folder / "data" / site / "run", 2, seed, images=False)

    def job(self, **changes: Any) -> AppJob:
        return AppJob.model_validate(app_job("run", self.files, **changes))

    def sites(self, job: AppJob, minimum_cases: int = 1) -> AppsHere:
        def load_at(site: str) -> Callable[[Place], Adds]:
            def load(place: Place) -> Adds:
                self.places[site] = place
                return Adds(place, **self.apps[site])

            return load

        loads = {site: load_at(site) for site in self.apps}
        return AppsHere(loads, self.folder / "data", self.folder / "work", job, minimum_cases)

    def run(self, **changes: Any) -> AppOutcome:
        job = self.job(**changes)
        return federate_app(self.sites(job), job, self.files, FolderStore(self.folder / "hub"), self.told.append)

    def kinds(self, kind: str) -> list[dict[str, Any]]:
        return [line for line in self.told if line["kind"] == kind]


@pytest.fixture(autouse=True)
def _environment_of_a_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (DATA_VARIABLE, RESOURCES_VARIABLE):
        monkeypatch.setenv(name, "")


def adding(**changes: Any) -> dict[str, dict[str, Any]]:
    """KCH adds 1 in 1 step, UCLH adds 4 in 2 steps."""
    return {"KCH": {"amount": 1.0, "steps": 1} | changes, "UCLH": {"amount": 4.0, "steps": 2} | changes}


def member(outcome: AppOutcome, name: str) -> bytes:
    with zipfile.ZipFile(outcome.results.archive) as results:
        [found] = [each for each in results.namelist() if each.endswith(f"/{name}")]
        return results.read(found)


def model(outcome: AppOutcome, name: str = "FL_global_model.pt") -> list[float]:
    return torch.load(io.BytesIO(member(outcome, name)), weights_only=True)["model"]["w"].tolist()


def validation(outcome: AppOutcome) -> dict[str, Any]:
    return json.loads(member(outcome, "cross_val_results.json"))


@pytest.mark.requirement("FILE-4")
@pytest.mark.parametrize(
    ("weights", "expected"),
    [({}, 3 * (1 + 2 * 4) / 3), ({"UCLH": 0.5}, 3 * (1 + 4) / 2), ({"UCLH": 0}, 3 * 1.0)],
)
def test_the_mean_weighs_iterations_times_aggregation_weight(
    tmp_path: Path, weights: dict[str, float], expected: float
):
    outcome = Federation(tmp_path, {"GLOBAL_ROUNDS": 3, "AGGREGATION_WEIGHTS": weights}, adding()).run()
    assert model(outcome) == [expected] * 4


@pytest.mark.requirement("FILE-4")
def test_as_many_rounds_are_trained_as_global_rounds_says(tmp_path: Path):
    federation = Federation(tmp_path, {"GLOBAL_ROUNDS": 2}, adding())
    assert federation.run().rounds == 2
    assert [line["round"] for line in federation.kinds("round-complete")] == [0, 1]


@pytest.mark.requirement("FILE-4", "RUN-1")
@pytest.mark.parametrize(("asked", "expected"), [(None, 5), (9, 9)])
def test_the_app_finds_local_rounds_in_its_file_and_those_of_the_start_go_first(
    tmp_path: Path, asked: int | None, expected: int
):
    federation = Federation(tmp_path, {"LOCAL_ROUNDS": 5, "LEARNING_RATE": 0.1}, adding())
    federation.run(local_rounds=asked)
    at_the_site = json.loads((federation.places["KCH"].app / "config.json").read_text())
    assert (at_the_site["LOCAL_ROUNDS"], at_the_site["LEARNING_RATE"]) == (expected, 0.1)
    assert at_the_site["GLOBAL_ROUNDS"] == 1  # the default, which an app may read as well


@pytest.mark.requirement("FILE-4")
def test_with_ignore_result_error_a_run_goes_on_without_the_failing_trust(tmp_path: Path):
    apps = adding() | {"UCLH": {"amount": 4.0, "steps": 2, "fails_in": 1}}
    federation = Federation(tmp_path, {"GLOBAL_ROUNDS": 3, "IGNORE_RESULT_ERROR": True}, apps)
    assert model(federation.run()) == [3.0 + 1.0 + 3.0] * 4
    assert [(line["site"], line["round"], line["reason"]) for line in federation.kinds("contribution-excluded")] == [
        ("UCLH", 1, "app-failed")
    ]


@pytest.mark.requirement("FILE-4")
def test_without_it_a_failing_trust_stops_the_run_and_nothing_it_said_is_repeated(tmp_path: Path):
    apps = adding() | {"UCLH": {"amount": 4.0, "steps": 2, "fails_in": 1}}
    federation = Federation(tmp_path, {"GLOBAL_ROUNDS": 3}, apps)
    with pytest.raises(TooFewContributions) as stopped:
        federation.run()
    assert stopped.value.excluded["UCLH"].code == "app-failed"
    assert "CodeOfTheAppFailed" in stopped.value.excluded["UCLH"].detail
    assert "ACC00001" not in json.dumps(federation.told) + str(stopped.value.excluded)
    assert len(federation.kinds("round-complete")) == 1


FAILING_EARLY = [
    ("install", {"fails_to_load": True}, "app-failed"),
    ("initialise", {"first": None}, "app-failed"),
    ("initialise", {"first": float("nan")}, "not-finite"),
]


@pytest.mark.requirement("FILE-4")
@pytest.mark.parametrize(("operation", "failing", "reason"), FAILING_EARLY)
def test_with_ignore_result_error_a_run_goes_on_without_a_trust_whose_app_can_not_begin(
    tmp_path: Path, operation: str, failing: dict[str, Any], reason: str
):
    apps = adding() | {"KCH": failing}  # the first by name, which is asked for the first weights
    federation = Federation(tmp_path, {"GLOBAL_ROUNDS": 2, "IGNORE_RESULT_ERROR": True}, apps)
    outcome = federation.run()
    assert model(outcome) == [8.0] * 4
    assert federation.kinds("result-ignored") == [
        {"kind": "result-ignored", "operation": operation, "site": "KCH", "reason": reason}
    ]
    assert validation(outcome).keys() == {"UCLH"}
    assert "ACC00001" not in json.dumps(federation.told)


@pytest.mark.requirement("FILE-4")
@pytest.mark.parametrize(("operation", "failing", "reason"), FAILING_EARLY)
@pytest.mark.parametrize("config", [{}, {"IGNORE_RESULT_ERROR": True}])
def test_a_trust_whose_app_can_not_begin_stops_a_run_that_needs_it(
    tmp_path: Path, operation: str, failing: dict[str, Any], reason: str, config: dict[str, Any]
):
    federation = Federation(tmp_path, config, adding() | {"KCH": failing})
    minimum = {"minimum_sites": 2} if config else {}
    with pytest.raises(SitesFailed, match=f"{operation} failed at KCH: {reason} "):
        federation.run(**minimum)
    assert not federation.kinds("training-started")


@pytest.mark.requirement("RUN-4")
def test_where_errors_are_ignored_a_round_still_needs_the_minimum_of_sites(tmp_path: Path):
    apps = adding() | {"UCLH": {"fails_in": 0}}
    with pytest.raises(TooFewContributions):
        Federation(tmp_path, {"IGNORE_RESULT_ERROR": True}, apps).run(minimum_sites=2)


class Held:
    """Passes answers on, and notes whether the first one's weights were still held when the last one came."""

    def __init__(self, sites: AppsHere) -> None:
        self._sites = sites
        self.first_is_held: bool | None = None

    def names(self) -> list[str]:
        return self._sites.names()

    def ask(self, operation: str, message: Message, sites: Sequence[str] | None = None) -> Answers:
        first: weakref.ref[Any] | None = None
        for site, answer in self._sites.ask(operation, message, sites):
            if operation == "train_round" and first is None:
                first = weakref.ref(answer.arrays["w"])
            elif operation == "train_round" and first is not None:
                self.first_is_held = first() is not None
            yield site, answer
            del answer


class Overheard:
    """Passes messages on, and notes the names of the tensors in each, either way."""

    def __init__(self, sites: AppsHere) -> None:
        self._sites = sites
        self.names_of: dict[str, set[str]] = {}

    def names(self) -> list[str]:
        return self._sites.names()

    def ask(self, operation: str, message: Message, sites: Sequence[str] | None = None) -> Answers:
        noted = self.names_of.setdefault(operation, set())
        noted.update(message.arrays)
        for site, answer in self._sites.ask(operation, message, sites):
            noted.update(answer.arrays)
            yield site, answer


@pytest.mark.requirement("RUN-10")
def test_a_tensor_of_several_names_travels_once_and_the_app_and_the_results_have_all_of_them(tmp_path: Path):
    heard: list[set[str]] = []

    def note(mine: Weights) -> Weights:
        heard.append(set(mine))
        return mine

    federation = Federation(tmp_path, {}, adding(names=("w", "x"), spoil=note))
    job = federation.job()
    sites = Overheard(federation.sites(job))
    outcome = federate_app(sites, job, federation.files, FolderStore(tmp_path / "hub"), federation.told.append)
    with_weights = ("initialise", "train_round", "submit_model", "validate")
    assert {operation: sites.names_of[operation] for operation in with_weights} == {key: {"w"} for key in with_weights}
    assert heard == [{"w", "x"}, {"w", "x"}]
    saved = torch.load(io.BytesIO(member(outcome, "FL_global_model.pt")), weights_only=True)["model"]
    assert {name: tensor.tolist() for name, tensor in saved.items()} == {"w": [3.0] * 4, "x": [3.0] * 4}


def test_names_of_one_tensor_that_come_to_differ_leave_the_contribution_out(tmp_path: Path):
    apps = adding(names=("w", "x"))
    apps["UCLH"] |= {"spoil": lambda new: new | {"x": new["x"] + 1}}
    federation = Federation(tmp_path, {"IGNORE_RESULT_ERROR": True}, apps)
    assert model(federation.run()) == [1.0] * 4
    assert [line["reason"] for line in federation.kinds("contribution-excluded")] == ["wrong-tensors"]


@pytest.mark.requirement("FILE-4")
@pytest.mark.parametrize(
    ("aggregator", "holds"),
    [("InTimeAccumulateWeightedAggregator", False), ("AccumulateWeightedAggregator", True)],
)
def test_the_aggregator_adds_each_result_as_it_comes_or_all_at_the_end_and_both_give_one_mean(
    tmp_path: Path, aggregator: str, holds: bool
):
    federation = Federation(tmp_path, {"AGGREGATOR": aggregator}, adding())
    job = federation.job()
    sites = Held(federation.sites(job))
    store = FolderStore(tmp_path / "hub")
    assert model(federate_app(sites, job, federation.files, store, federation.told.append)) == [3.0] * 4
    assert sites.first_is_held is holds


@pytest.mark.requirement("FILE-4")
def test_a_wrong_configuration_ends_the_attempt_before_any_site_is_asked_with_the_field_named(tmp_path: Path):
    federation = Federation(tmp_path, {"AGGREGATION_WEIGHTS": {"GSTT": 1.0}}, adding())
    give_files(federation.files, tmp_path / "hub")
    attempt = Attempt("run", 1, TRUSTS, tmp_path / "hub", app_job("run", federation.files))
    with pytest.raises(AppConfigInvalid):
        conduct_app(attempt, federation.sites, ())
    last = read_events(tmp_path / "hub")[-1]
    assert (last["kind"], last["reason"]) == ("failed", "config-invalid")
    assert "AGGREGATION_WEIGHTS.GSTT" in last["detail"]
    assert federation.places == {}


def test_an_attempt_that_finished_says_where_its_results_are_in_its_last_line(tmp_path: Path):
    federation = Federation(tmp_path, {}, adding())
    give_files(federation.files, tmp_path / "hub")
    conduct_app(Attempt("run", 1, TRUSTS, tmp_path / "hub", app_job("run", federation.files)), federation.sites, ())
    last = read_events(tmp_path / "hub")[-1]
    assert last["kind"] == "finished"
    assert Path(last["archive"]).is_file()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda new: {"w": np.full(4, np.nan, np.float32)}, "not-finite"),
        (lambda new: {"w": new["w"][:1]}, "wrong-shape"),
        (lambda new: new | {"extra": new["w"]}, "wrong-tensors"),
        (lambda new: {"w": new["w"].astype(np.float64)}, "wrong-dtype"),
        (lambda new: {"w": new["w"] + 1e6}, "update-too-large"),
        (lambda new: {"w": new["w"].astype(object)}, "app-answer-invalid"),
        (lambda new: {"w": new["w"].astype(np.complex64)}, "app-answer-invalid"),
    ],
)
def test_a_contribution_that_can_not_count_is_left_out_of_its_round(
    tmp_path: Path, spoil: Callable[[Weights], Weights], reason: str
):
    apps = adding() | {"UCLH": {"spoil": spoil}}
    federation = Federation(tmp_path, {"IGNORE_RESULT_ERROR": True}, apps)
    assert model(federation.run()) == [1.0] * 4
    assert [line["reason"] for line in federation.kinds("contribution-excluded")] == [reason]


@pytest.mark.requirement("RUN-8")
def test_the_points_of_metrics_are_told_by_trust(tmp_path: Path):
    federation = Federation(tmp_path, {"GLOBAL_ROUNDS": 2}, adding())
    federation.run()
    points = [(line["site"], line["name"], line["x"], line["axis"]) for line in federation.kinds("metric")]
    assert sorted(points) == [(site, "LOSS", float(x), "round") for site in TRUSTS for x in (0, 1)]
    by_round = [
        {site: said["metrics"] for site, said in line["sites"].items()} for line in federation.kinds("round-complete")
    ]
    assert by_round == [{site: {"LOSS": float(number)} for site in TRUSTS} for number in (0, 1)]


@pytest.mark.requirement("RUN-8")
def test_where_the_framework_validates_each_round_its_metrics_are_points_of_the_round(tmp_path: Path):
    federation = Federation(tmp_path, {"GLOBAL_ROUNDS": 2}, adding(is_validated_each_round=True))
    federation.run()
    means = [(line["site"], line["x"], line["value"]) for line in federation.kinds("metric") if line["name"] == "mean"]
    assert sorted(means) == [(site, float(number), 3.0 * (number + 1)) for site in TRUSTS for number in (0, 1)]
    assert all(
        line["sites"]["KCH"]["metrics"].keys() == {"LOSS", "mean"} for line in federation.kinds("round-complete")
    )


def test_a_metric_whose_name_could_be_a_message_leaves_the_contribution_out(tmp_path: Path):
    apps = adding() | {"UCLH": {"label": "patient\nACC00001"}}
    federation = Federation(tmp_path, {"IGNORE_RESULT_ERROR": True}, apps)
    federation.run()
    assert [line["reason"] for line in federation.kinds("contribution-excluded")] == ["malformed-answer"]
    assert "ACC00001" not in json.dumps(federation.told)


@pytest.mark.requirement("RUN-10")
def test_every_model_is_validated_at_every_site_and_the_best_is_the_one_that_sites_scored_highest(tmp_path: Path):
    federation = Federation(tmp_path, {"GLOBAL_ROUNDS": 3}, adding(scores=[9.0, 0.8, 0.3]))
    outcome = federation.run()
    after_first, after_last = 3.0, 9.0
    assert model(outcome, "best_FL_global_model.pt") == [after_first] * 4
    own = {"KCH": 6.0 + 1.0, "UCLH": 6.0 + 4.0}
    expected = {GLOBAL: after_last, BEST: after_first} | own
    assert validation(outcome) == {site: {owner: {"mean": mean} for owner, mean in expected.items()} for site in TRUSTS}


@pytest.mark.requirement("RUN-10")
@pytest.mark.parametrize(("sign", "best"), [(-1, 0), (1, 2)])
def test_where_each_round_is_validated_the_best_model_is_that_of_the_round_with_the_highest_metric(
    tmp_path: Path, sign: int, best: int
):
    apps = adding(is_validated_each_round=True)
    apps = {site: settings | {"amount": sign * settings["amount"]} for site, settings in apps.items()}
    outcome = Federation(tmp_path, {"GLOBAL_ROUNDS": 3, "BEST_METRIC": "mean"}, apps).run()
    mean = sign * 3.0 * (best + 1)
    assert model(outcome, "best_FL_global_model.pt") == [mean] * 4
    sealed = json.loads(member(outcome, "seal.json"))
    assert (sealed["best"]["round"], sealed["best"]["score"]) == (best, mean)
    assert sealed["best"]["digest"] == sealed["rounds"][str(best)]
    assert validation(outcome)["KCH"][BEST] == {"mean": mean}


def test_a_round_that_a_trust_could_not_score_is_not_the_best(tmp_path: Path):
    apps = adding(is_validated_each_round=True, dice=0.5)
    outcome = Federation(tmp_path, {"BEST_METRIC": "dice"}, apps | {"UCLH": apps["UCLH"] | {"dice": np.nan}}).run()
    assert json.loads(member(outcome, "seal.json"))["best"] is None


def test_an_app_that_scores_nothing_has_no_best_model(tmp_path: Path):
    outcome = Federation(tmp_path, {"GLOBAL_ROUNDS": 2}, adding()).run()
    with zipfile.ZipFile(outcome.results.archive) as results:
        assert not [name for name in results.namelist() if "best" in name]
    assert json.loads(member(outcome, "seal.json"))["best"] is None


def test_a_validator_that_fails_stops_the_run_unless_errors_are_ignored(tmp_path: Path):
    apps = adding() | {"UCLH": {"validates": False}}
    with pytest.raises(SitesFailed, match="validate failed at UCLH: app-failed"):
        Federation(tmp_path / "a", {}, apps).run()
    federation = Federation(tmp_path / "b", {"IGNORE_RESULT_ERROR": True}, apps)
    outcome = federation.run()
    assert {site: len(found) for site, found in validation(outcome).items()} == {"KCH": 3, "UCLH": 0}
    assert {line["site"] for line in federation.kinds("result-ignored")} == {"UCLH"}


@pytest.mark.requirement("RUN-10")
@pytest.mark.parametrize("none", [float("nan"), float("inf")])
def test_a_metric_of_validation_that_is_no_number_is_null_in_the_results_and_no_point(tmp_path: Path, none: float):
    apps = adding(is_validated_each_round=True)
    federation = Federation(tmp_path, {}, {"KCH": apps["KCH"] | {"dice": none}, "UCLH": apps["UCLH"] | {"dice": 0.5}})
    found = validation(federation.run())
    assert {site: by_model[GLOBAL]["dice"] for site, by_model in found.items()} == {"KCH": None, "UCLH": 0.5}
    assert [line["site"] for line in federation.kinds("metric") if line["name"] == "dice"] == ["UCLH"]


@pytest.mark.requirement("RUN-4", "RUN-10")
@pytest.mark.parametrize(
    ("submits", "reason"),
    [
        (lambda mine: {"w": np.full(4, np.nan, np.float32)}, "not-finite"),
        (lambda mine: {"w": mine["w"][:1]}, "wrong-shape"),
        (lambda mine: mine | {"extra": mine["w"]}, "wrong-tensors"),
        (lambda mine: {"w": mine["w"].astype(np.float64)}, "wrong-dtype"),
    ],
)
@pytest.mark.parametrize("ignoring", [True, False])
def test_a_trusts_own_model_that_is_not_of_this_network_goes_to_no_trust_and_that_is_said(
    tmp_path: Path, submits: Callable[[Weights], Weights], reason: str, ignoring: bool
):
    apps = adding() | {"UCLH": {"submits": submits}}
    federation = Federation(tmp_path, {"IGNORE_RESULT_ERROR": ignoring}, apps)
    found = validation(federation.run())
    assert {site: set(by_model) for site, by_model in found.items()} == {key: {GLOBAL, "KCH"} for key in TRUSTS}
    assert federation.kinds("result-ignored") == [
        {"kind": "result-ignored", "operation": "submit_model", "site": "UCLH", "reason": reason}
    ]


@pytest.mark.requirement("RUN-9")
def test_a_run_that_has_only_its_validation_left_asks_for_no_model_that_a_trust_has_not_trained(tmp_path: Path):
    config = {"GLOBAL_ROUNDS": 2}
    whole = Federation(tmp_path, config, adding()).run()
    rest = Federation(tmp_path, config, adding()).run(starting_round=2)
    assert rest.weights_digest == whole.weights_digest
    assert {site: set(by_model) for site, by_model in validation(rest).items()} == {key: {GLOBAL} for key in TRUSTS}


@pytest.mark.requirement("RUN-9")
def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path: Path):
    config = {"GLOBAL_ROUNDS": 3}
    whole = Federation(tmp_path, config, adding(random=True)).run()
    resumed = Federation(tmp_path, config, adding(random=True)).run(starting_round=2)
    assert resumed.weights_digest == whole.weights_digest
    assert model(whole) != [9.0] * 4  # the numbers were drawn


@pytest.mark.requirement("FILE-6")
def test_the_seal_has_the_digest_of_every_file_and_of_the_query(tmp_path: Path):
    federation = Federation(tmp_path, {}, adding())
    sealed = json.loads(member(federation.run(), "seal.json"))["job"]
    assert (sealed["files"], sealed["query"]) == (federation.job().files, QUERY)


@pytest.mark.requirement("RUN-9")
def test_the_seal_says_of_each_trust_how_many_studies_it_had_and_the_digest_of_its_data(tmp_path: Path):
    federation = Federation(tmp_path, {}, adding())
    prepared = {site: json.loads((tmp_path / "data" / site / "run" / "prepared.json").read_bytes()) for site in TRUSTS}
    cohorts = {"KCH": "c" * 64}
    sealed = json.loads(member(federation.run(cohorts=cohorts), "seal.json"))["sites"]
    assert {site: (said["cases"], said["data"], said["cohort"]) for site, said in sealed.items()} == {
        site: (2, prepared[site]["digest"], cohorts.get(site)) for site in TRUSTS
    }


@pytest.mark.parametrize(
    "record", ["{}", '{"cases": 0, "digest": "no"}', '{"cases": "2", "digest": "' + "0" * 64 + '"}']
)
def test_a_trust_that_does_not_say_what_its_data_are_takes_no_part(tmp_path: Path, record: str):
    federation = Federation(tmp_path, {}, adding())
    (tmp_path / "data" / "KCH" / "run" / "prepared.json").write_text(record)
    with pytest.raises(SitesFailed, match=r"install failed at KCH: (run-not-prepared|malformed-answer) "):
        federation.run()


@pytest.mark.parametrize(
    ("changes", "minimum_cases", "code"),
    [
        ({"query": "0" * 64}, 1, "query-differs"),
        ({"project_id": "another"}, 1, "query-differs"),
        ({}, 3, "too-few-cases"),
        ({"run_id": "never-prepared"}, 1, "run-not-prepared"),
    ],
)
def test_a_site_runs_no_app_on_what_it_has_not_prepared(
    tmp_path: Path, changes: dict[str, Any], minimum_cases: int, code: str
):
    federation = Federation(tmp_path, {}, adding())
    job = federation.job().model_copy(update=changes)
    sites = federation.sites(job, minimum_cases)
    with pytest.raises(SitesFailed, match=f"install failed at KCH: {code} "):
        federate_app(sites, job, federation.files, FolderStore(tmp_path / "hub"), federation.told.append)
    assert federation.places == {}


def test_a_site_runs_no_file_but_those_of_the_job(tmp_path: Path):
    federation = Federation(tmp_path, {}, adding())
    job = federation.job()
    for files in ({**federation.files, "trainer.py": b"other"}, {**federation.files, "more.py": b""}):
        with pytest.raises(SitesFailed, match="app-refused"):
            federate_app(federation.sites(job), job, files, FolderStore(tmp_path / "hub"), federation.told.append)
    assert federation.places == {}


@pytest.mark.parametrize("name", ["../trainer.py", "/etc/passwd", "a/../b.py", ".hidden", "a//b.py", ""])
def test_a_file_whose_name_leads_out_of_the_apps_folder_is_refused(name: str):
    with pytest.raises(ValueError, match="files"):
        AppJob.model_validate(app_job("run", {name: b""}))
