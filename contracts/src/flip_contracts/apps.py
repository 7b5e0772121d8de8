"""What a researcher's app says of itself: the files it must have, and its configuration. Pure.

Whoever starts a run and whoever carries it out read it by the same code.
"""

import json
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flip_contracts.base import ModelId, Sha256, TrustCode
from flip_contracts.projects import Framework

FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}(/[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}){0,7}$")]
"""A file of an app, by its path in the app's folder."""

CONFIG = "config.json"
PYPROJECT = "pyproject.toml"
REQUIRED_FILES: Mapping[Framework, tuple[str, ...]] = {
    "nvflare": ("trainer.py", "validator.py"),
    "flower": ("client_app.py", PYPROJECT),
}
"""The files without which an app can't train, by framework. A Flower app may have `client_app.py` in any folder."""

Aggregator = Literal["InTimeAccumulateWeightedAggregator", "AccumulateWeightedAggregator"]
SERVER_ROUNDS, LOCAL_EPOCHS, BEST_METRIC = "num-server-rounds", "local-epochs", "best-metric"
"""What a Flower app calls its rounds, and the metric by which its best model is found."""
_OBJECT = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*$"

Rounds = Annotated[int, Field(ge=1, le=99)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, with the field as it is written in the file."""

    field: str
    detail: str


class AppConfigInvalid(ValueError):
    """An app's configuration can't be used. `problems` has all that is wrong with it."""

    code = "config-invalid"

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("; ".join(f"{problem.field}: {problem.detail}" for problem in problems))


class AppConfig(BaseModel):
    """What the platform acts on, of an NVFLARE app by the names in its `config.json`. Other keys are the app's own."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    global_rounds: Annotated[Rounds, Field(alias="GLOBAL_ROUNDS")] = 1
    local_rounds: Annotated[Rounds, Field(alias="LOCAL_ROUNDS")] = 1
    """For the app's own code, which reads it from the file."""
    ignore_result_error: Annotated[bool, Field(alias="IGNORE_RESULT_ERROR")] = False
    """Whether a round goes on without a Trust whose result can't be used."""
    aggregator: Annotated[Aggregator, Field(alias="AGGREGATOR")] = "InTimeAccumulateWeightedAggregator"
    aggregation_weights: Annotated[dict[TrustCode, Weight], Field(alias="AGGREGATION_WEIGHTS")] = {}
    """Factors on a Trust's iterations when results are averaged; 1 for a Trust not named."""
    best_metric: Annotated[str, Field(alias="BEST_METRIC", min_length=1, max_length=64)] = "val_accuracy"
    """The metric by which the best model is found; more is better. The default is NVFLARE's own."""

    def check_trusts(self, trusts: Collection[TrustCode], *, some_absent: bool = False) -> None:
        """Whether it fits a run over these Trusts; with `some_absent` it may name others. Raises `AppConfigInvalid`."""
        others = set[TrustCode]() if some_absent else self.aggregation_weights.keys() - set(trusts)
        problems = [Problem(f"AGGREGATION_WEIGHTS.{trust}", "is no Trust of this run") for trust in sorted(others)]
        if not problems and not any(self.aggregation_weights.get(trust, 1.0) for trust in trusts):
            problems.append(Problem("AGGREGATION_WEIGHTS", "no Trust counts"))
        if problems:
            raise AppConfigInvalid(problems)


def read_app_config(text: bytes | None) -> AppConfig:
    """The configuration in a `config.json`; of an app without one all defaults.

    Raises `AppConfigInvalid` with every field that is wrong.
    """
    try:
        return AppConfig.model_validate(app_settings(text))
    except ValidationError as error:
        raise AppConfigInvalid([_problem(each["loc"], each["msg"]) for each in error.errors()]) from None


class FlowerApp(BaseModel):
    """What the platform reads in a Flower app's `pyproject.toml`, at `tool.flwr.app`."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    clientapp: Annotated[str, Field(pattern=_OBJECT)]
    """Where the ClientApp is: `package.module:name`."""
    serverapp: Annotated[str, Field(pattern=_OBJECT)] | None = None
    run_config: dict[str, Any] = {}
    """The run's configuration; what is written as a table is one key a line, its parts joined by points."""

    @property
    def module(self) -> str:
        """The module of the ClientApp."""
        return self.clientapp.partition(":")[0]

    @property
    def config(self) -> AppConfig:
        """Its rounds, and the metric of its best model. Raises `AppConfigInvalid`."""
        names = {"GLOBAL_ROUNDS": SERVER_ROUNDS, "LOCAL_ROUNDS": LOCAL_EPOCHS, "BEST_METRIC": BEST_METRIC}
        given = {ours: self.run_config[theirs] for ours, theirs in names.items() if theirs in self.run_config}
        try:
            return AppConfig.model_validate(given)
        except ValidationError as error:
            problems = [Problem(names[str(each["loc"][0])], each["msg"]) for each in error.errors()]
            raise AppConfigInvalid(problems) from None

    @property
    def client_file(self) -> str:
        """The file of the ClientApp."""
        return _file_of(self.module)

    @property
    def server_file(self) -> str | None:
        """The file of the ServerApp that `serverapp` names, if it names one."""
        return _file_of(self.serverapp.partition(":")[0]) if self.serverapp else None


def read_pyproject(text: bytes) -> FlowerApp:
    """What a Flower app's `pyproject.toml` says. Raises `AppConfigInvalid`."""
    try:
        flwr: Any = tomllib.loads(text.decode())["tool"]["flwr"]["app"]
        given = {**flwr["components"], "run_config": _flat(flwr.get("config", {}))}
        return FlowerApp.model_validate(given)
    except KeyError as error:
        raise AppConfigInvalid([Problem(PYPROJECT, f"{error.args[0]} is missing")]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise AppConfigInvalid([Problem(PYPROJECT, f"is not TOML: {error}")]) from None
    except (TypeError, AttributeError):
        raise AppConfigInvalid([Problem(PYPROJECT, "tool.flwr.app must be a table of tables")]) from None
    except ValidationError as error:
        raise AppConfigInvalid([_problem(each["loc"], each["msg"]) for each in error.errors()]) from None


def read_flower_app(files: Mapping[str, bytes]) -> FlowerApp:
    """What the `pyproject.toml` among a Flower app's files says. Raises `AppConfigInvalid`, also where it does not fit
    the other files."""
    if PYPROJECT not in files:
        raise AppConfigInvalid([Problem(PYPROJECT, "is missing")])
    app = read_pyproject(files[PYPROJECT])
    if problems := problems_of_components(app.client_file, app.server_file, files):
        raise AppConfigInvalid(problems)
    return app


def problems_of_components(client_file: str, server_file: str | None, files: Collection[str]) -> list[Problem]:
    """What is wrong with the files that a Flower app names, by the names of those that it has.

    The platform serves every app itself, by federated averaging: a ServerApp that an app brings would be a researcher's
    code at the hub, and is refused.
    """
    problems: list[Problem] = []
    if client_file not in files:
        problems.append(Problem("clientapp", f"{client_file} is missing"))
    if server_file in files:
        problems.append(Problem("serverapp", "the platform has its own; leave the file out"))
    return problems


def missing_files(framework: Framework, files: Collection[str]) -> list[str]:
    """The required files that an app lacks, by the names of those that it has."""
    anywhere = {PurePosixPath(file).name for file in files} - {PYPROJECT} if framework == "flower" else set[str]()
    return [name for name in REQUIRED_FILES[framework] if name not in {*files, *anywhere}]


def read_config(framework: Framework, files: Mapping[str, bytes]) -> AppConfig:
    """The configuration of an app of either framework. Raises `AppConfigInvalid`, for files that are missing, too."""
    if missing := missing_files(framework, files):
        raise AppConfigInvalid([Problem(name, "is missing") for name in missing])
    return read_app_config(files.get(CONFIG)) if framework == "nvflare" else read_flower_app(files).config


def object_of_file(model_id: ModelId, digest: Sha256) -> str:
    """Where a file of a model is kept once its scan has accepted it."""
    return f"models/{model_id}/files/{digest}"


def _file_of(module: str) -> str:
    return module.replace(".", "/") + ".py"


def _flat(table: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= (
            _flat(cast("Mapping[str, Any]", value), f"{above}{key}.")
            if isinstance(value, dict)
            else {above + key: value}
        )
    return flat


def app_settings(text: bytes | None) -> dict[str, Any]:
    """All that a `config.json` holds. Raises `AppConfigInvalid` if it is no JSON object, or says a thing twice."""
    if text is None:
        return {}
    try:
        settings: object = json.loads(text, object_pairs_hook=_once)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise AppConfigInvalid([Problem(CONFIG, f"is not JSON: {error}")]) from None
    if not isinstance(settings, dict):
        raise AppConfigInvalid([Problem(CONFIG, "must be a JSON object")])
    return cast("dict[str, Any]", settings)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for key, value in pairs:
        if key in settings:
            raise AppConfigInvalid([Problem(key, "stands there twice")])
        settings[key] = value
    return settings


def _problem(location: tuple[int | str, ...], message: str) -> Problem:
    return Problem(".".join(str(part) for part in location if part != "[key]"), message)
