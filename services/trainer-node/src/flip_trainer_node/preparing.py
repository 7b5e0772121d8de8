"""What a worker prepares for a run at a Trust, whatever the run is: from the project's manifest, each file checked by
its digest, there as a whole or not at all."""

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

import orjson
from flip_contracts.base import ProjectId, ReasonCode, Sha256
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator

_CASE = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_RECORD = "prepared.json"
"""Written last. The trainers learn from it, and from nobody else, whose run it is (`flip_nnunet.site_settings`)."""


class CannotPrepare(Exception):
    """The Trust can't take part with this data. The reason never holds a case's name."""

    def __init__(self, reason: ReasonCode) -> None:
        super().__init__(reason)
        self.reason = reason


class NotWanted(Exception):
    """The attempt is to be ended; nobody waits for its data."""


def _stays_inside(path: str) -> str:
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise ValueError("must stay inside the project's folder")
    return path


class ListedFile(BaseModel):
    """A file of the project; `path` is relative to the manifest."""

    model_config = ConfigDict(frozen=True)

    path: Annotated[str, AfterValidator(_stays_inside)]
    sha256: Sha256


class ListedCase(BaseModel):
    """A case with an image a channel, and its label if it has one. The frozen cohort's study is found by `study`
    (`flip_contracts.imaging.study_digest`), which a case of a ready data set hasn't."""

    model_config = ConfigDict(frozen=True)

    case: Annotated[str, Field(pattern=_CASE)]
    study: Sha256 | None
    images: list[ListedFile]
    label: ListedFile | None


class Manifest(BaseModel):
    """What the Trust's imaging service says of a project's images; `channels` is empty where there are none."""

    model_config = ConfigDict(frozen=True)

    project_id: ProjectId
    labels: dict[str, PositiveInt]
    channels: list[str]
    cases: list[ListedCase]

    @model_validator(mode="after")
    def _has_an_image_a_channel(self) -> Self:
        if any(len(case.images) != len(self.channels) for case in self.cases):
            raise ValueError("each case must have an image a channel")
        return self


@dataclass(frozen=True, slots=True)
class Prepared:
    """Data that are ready."""

    cases: int
    digest: Sha256


def read_manifest(project: Path, project_id: ProjectId) -> Manifest:
    """The project's manifest, its cases by name. Raises CannotPrepare."""
    try:
        manifest = Manifest.model_validate_json((project / "manifest.json").read_bytes())
    except FileNotFoundError as error:
        raise CannotPrepare("images-missing") from error
    except ValidationError as error:
        raise CannotPrepare("manifest-not-valid") from error
    if manifest.project_id != project_id:
        raise CannotPrepare("manifest-not-valid")
    return manifest.model_copy(update={"cases": sorted(manifest.cases, key=lambda case: case.case)})


def once(run: Path, place: Path, project_id: ProjectId, fill: Callable[[Path], Prepared]) -> Prepared:
    """What `fill` makes of an empty path, at `place` below the folder `run`; or what was prepared there before.

    Raises CannotPrepare where the disk is full, and what `fill` raises.
    """
    try:
        return _once(run, place, project_id, fill)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise CannotPrepare("disk-full") from error


def _once(run: Path, place: Path, project_id: ProjectId, fill: Callable[[Path], Prepared]) -> Prepared:
    record = run / _RECORD
    if record.exists():
        found = orjson.loads(record.read_bytes())
        return Prepared(found["cases"], found["digest"])
    run.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=run, prefix=".unfinished-") as unfinished:
        draft = Path(unfinished) / place.name
        prepared = fill(draft)
        target = run / place
        target.parent.mkdir(exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        draft.rename(target)
    said = {"cases": prepared.cases, "digest": prepared.digest, "project_id": str(project_id)}
    write(record, orjson.dumps(said))
    return prepared


def take(project: Path, listed: ListedFile, target: Path) -> None:
    """Link the file, or copy it to another file system, and check that it is what the manifest says.

    Raises CannotPrepare.
    """
    source = project / listed.path
    try:
        try:
            os.link(source, target)
        except OSError as error:
            if isinstance(error, FileNotFoundError):
                raise
            shutil.copyfile(source, target)
        with target.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise CannotPrepare("file-missing") from error
    if digest != listed.sha256:
        raise CannotPrepare("digest-differs")


def write(file: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    draft = file.with_name(f".{file.name}")
    with draft.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(file)
