"""Builds a run's nnU-Net data set from a project's images and labels at a Trust, each file checked by its digest."""

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import orjson
from flip_contracts.base import ProjectId, ReasonCode, Sha256
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt, ValidationError

ENDING = ".nii.gz"
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
    """The attempt is to be ended; nobody waits for its data set."""


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
    """An imported study with its label, if it has one."""

    model_config = ConfigDict(frozen=True)

    case: Annotated[str, Field(pattern=_CASE)]
    image: ListedFile
    label: ListedFile | None


class Manifest(BaseModel):
    """What the Trust's imaging service says of a project's images."""

    model_config = ConfigDict(frozen=True)

    project_id: ProjectId
    labels: dict[str, PositiveInt]
    channel: str | None
    cases: list[ListedCase]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A data set that is ready."""

    cases: int
    digest: Sha256


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be built: from the project's folder, under the run's folder, as data set `name`.

    With `unlabelled` the cases without a label are in it, too, in a folder of their own, `imagesTs`.
    """

    project: Path
    project_id: ProjectId
    run: Path
    name: str
    minimum_cases: int
    unlabelled: bool = False


def prepare(request: Request, go_on: Callable[[], bool]) -> Prepared:
    """Build the data set, or find it built. Blocks while files are read.

    Raises CannotPrepare, or NotWanted when `go_on` says no.
    """
    try:
        return _prepare(request, go_on)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise CannotPrepare("disk-full") from error


def _prepare(request: Request, go_on: Callable[[], bool]) -> Prepared:
    record = request.run / _RECORD
    if record.exists():
        found = orjson.loads(record.read_bytes())
        return Prepared(found["cases"], found["digest"])
    manifest = _read_manifest(request)
    request.run.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=request.run, prefix=".unfinished-") as unfinished:
        draft = Path(unfinished) / request.name
        prepared = _fill(draft, manifest, request, go_on)
        target = request.run / "nnUNet_raw" / request.name
        target.parent.mkdir(exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        draft.rename(target)
    said = {"cases": prepared.cases, "digest": prepared.digest, "project_id": str(request.project_id)}
    _write(record, orjson.dumps(said))
    return prepared


def _read_manifest(request: Request) -> Manifest:
    try:
        manifest = Manifest.model_validate_json((request.project / "manifest.json").read_bytes())
    except FileNotFoundError as error:
        raise CannotPrepare("images-missing") from error
    except ValidationError as error:
        raise CannotPrepare("manifest-not-valid") from error
    if manifest.project_id != request.project_id:
        raise CannotPrepare("manifest-not-valid")
    if len(manifest.cases) < request.minimum_cases:
        raise CannotPrepare("too-few-cases")
    if not request.unlabelled and (not manifest.labels or any(case.label is None for case in manifest.cases)):
        raise CannotPrepare("label-missing")
    if manifest.channel is None:
        raise CannotPrepare("images-missing")
    return manifest


def _fill(draft: Path, manifest: Manifest, request: Request, go_on: Callable[[], bool]) -> Prepared:
    for folder in ("imagesTr", "labelsTr", *(("imagesTs",) if request.unlabelled else ())):
        (draft / folder).mkdir(parents=True)
    description = {
        "channel_names": {"0": manifest.channel},
        "labels": {"background": 0, **manifest.labels},
        "numTraining": sum(case.label is not None for case in manifest.cases),
        "file_ending": ENDING,
    }
    text = orjson.dumps(description, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2)
    _write(draft / "dataset.json", text)
    digest = hashlib.sha256(text)
    for case in sorted(manifest.cases, key=lambda case: case.case):
        if not go_on():
            raise NotWanted
        images = "imagesTs" if case.label is None else "imagesTr"
        _take(request.project, case.image, draft / images / f"{case.case}_0000{ENDING}")
        if case.label is not None:
            _take(request.project, case.label, draft / "labelsTr" / f"{case.case}{ENDING}")
        label = "" if case.label is None else f" {case.label.sha256}"
        digest.update(f"{case.case} {case.image.sha256}{label}\n".encode())
    return Prepared(len(manifest.cases), digest.hexdigest())


def _take(project: Path, listed: ListedFile, target: Path) -> None:
    """Link the file, or copy it to another file system, and check that it is what the manifest says."""
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


def _write(file: Path, content: bytes) -> None:
    draft = file.with_name(f".{file.name}")
    with draft.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(file)
