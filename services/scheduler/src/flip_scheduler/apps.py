"""What a researcher's own app still lacks before it can be run, by what `files` and `cohort` have told. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, Literal

from flip_contracts.apps import (
    CONFIG,
    PYPROJECT,
    AppConfig,
    AppConfigInvalid,
    FileName,
    Problem,
    missing_files,
    problems_of_components,
)
from flip_contracts.base import ReasonCode, Sha256, TrustCode
from flip_contracts.files import AppConfiguration
from flip_contracts.projects import Framework
from pydantic import ValidationError

CONFIGURATION_FILE: Mapping[Framework, FileName] = {"nvflare": CONFIG, "flower": PYPROJECT}


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file of a model and what its scan said."""

    path: FileName
    status: Literal["scanning", "accepted", "refused"]
    digest: Sha256
    reason: ReasonCode | None = None
    configuration: AppConfiguration | None = None


@dataclass(frozen=True, slots=True)
class App:
    """A model's files, and the digest of the query of which each Trust froze the project's cohort."""

    files: Sequence[ModelFile] = ()
    queries: Mapping[TrustCode, Sha256] = field(default_factory=dict[TrustCode, Sha256])

    @property
    def digests(self) -> dict[FileName, Sha256]:
        """Every file with its digest."""
        return {file.path: file.digest for file in self.files}

    def query_at(self, trusts: AbstractSet[TrustCode]) -> Sha256 | None:
        """The digest of the one query of which all these Trusts froze the cohort; None where there is none."""
        digests = {self.queries.get(trust) for trust in trusts}
        return digests.pop() if len(digests) == 1 else None


def missing_of_app(framework: Framework, app: App, trusts: AbstractSet[TrustCode]) -> Iterable[dict[str, Any]]:
    """What an app lacks for a run over these Trusts: files, their scans, a configuration that fits, a cohort."""
    paths = {file.path for file in app.files}
    for path in missing_files(framework, paths):
        yield {"code": "file-missing", "detail": f"{path} has not been uploaded.", "field": path}
    for file in app.files:
        if file.status == "scanning":
            yield {"code": "file-not-scanned", "detail": "Its scan has not been done yet.", "field": file.path}
        elif file.status == "refused":
            yield {"code": "file-refused", "detail": f"Its scan said: {file.reason}.", "field": file.path}
    for file in app.files:
        if file.path == CONFIGURATION_FILE[framework] and file.configuration is not None:
            for problem in _problems(file.configuration, paths, trusts):
                yield {
                    "code": "config-not-valid",
                    "detail": problem.detail,
                    "file": file.path,
                    "field": problem.field,
                }
    if trusts and app.query_at(trusts) is None:
        detail = "The cohort is not frozen, of one query, at every Trust."
        yield {"code": "cohort-not-frozen", "detail": detail, "trusts": sorted(trusts - app.queries.keys())}


def _problems(
    said: AppConfiguration, paths: AbstractSet[FileName], trusts: AbstractSet[TrustCode]
) -> Iterable[Problem]:
    yield from (Problem(each.field, each.detail) for each in said.problems)
    if said.client_file is not None:
        yield from problems_of_components(said.client_file, said.server_file, paths)
    if said.aggregation_weights and trusts:
        yield from _problems_of_weights(said.aggregation_weights, trusts)


def _problems_of_weights(weights: Mapping[str, float], trusts: AbstractSet[TrustCode]) -> Iterable[Problem]:
    try:
        AppConfig.model_validate({"AGGREGATION_WEIGHTS": dict(weights)}).check_trusts(trusts)
    except AppConfigInvalid as invalid:
        yield from invalid.problems
    except ValidationError:
        yield Problem("AGGREGATION_WEIGHTS", "must be weights by the codes of Trusts")
