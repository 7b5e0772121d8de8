"""Builds a run's nnU-Net data set from a project's images and labels at a Trust."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import orjson
from flip_contracts.base import ProjectId

from flip_trainer_node.preparing import CannotPrepare, Manifest, NotWanted, Prepared, once, read_manifest, take, write

ENDING = ".nii.gz"


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

    def fill(draft: Path) -> Prepared:
        manifest = read_manifest(request.project, request.project_id)
        _check(manifest, request)
        return _fill(draft, manifest, request, go_on)

    return once(request.run, Path("nnUNet_raw", request.name), request.project_id, fill)


def _check(manifest: Manifest, request: Request) -> None:
    if len(manifest.cases) < request.minimum_cases:
        raise CannotPrepare("too-few-cases")
    if not request.unlabelled and (not manifest.labels or any(case.label is None for case in manifest.cases)):
        raise CannotPrepare("label-missing")
    if not manifest.channels:
        raise CannotPrepare("images-missing")


def _fill(draft: Path, manifest: Manifest, request: Request, go_on: Callable[[], bool]) -> Prepared:
    for folder in ("imagesTr", "labelsTr", *(("imagesTs",) if request.unlabelled else ())):
        (draft / folder).mkdir(parents=True)
    description = {
        "channel_names": {str(number): name for number, name in enumerate(manifest.channels)},
        "labels": {"background": 0, **manifest.labels},
        "numTraining": sum(case.label is not None for case in manifest.cases),
        "file_ending": ENDING,
    }
    text = orjson.dumps(description, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2)
    write(draft / "dataset.json", text)
    digest = hashlib.sha256(text)
    for case in manifest.cases:
        if not go_on():
            raise NotWanted
        images = "imagesTs" if case.label is None else "imagesTr"
        for channel, image in enumerate(case.images):
            take(request.project, image, draft / images / f"{case.case}_{channel:04d}{ENDING}")
        if case.label is not None:
            take(request.project, case.label, draft / "labelsTr" / f"{case.case}{ENDING}")
        files = [*case.images, *([] if case.label is None else [case.label])]
        digest.update(f"{' '.join((case.case, *(file.sha256 for file in files)))}\n".encode())
    return Prepared(len(manifest.cases), digest.hexdigest())
