"""A Trust's operator registers a ready nnU-Net data set for a project, instead of the studies of its PACS.

All of it is checked before anything is changed, and a dry run ends there. The report names the data set's own files:
it is for the operator, and never leaves the Trust.
"""

import asyncio
import errno
import hashlib
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from flip_chassis.refusal import Invalid, NotFound, Refused, require
from flip_chassis.work import Work
from flip_contracts.base import ProjectId, Sha256
from pydantic import BaseModel

from flip_imaging import domain, store
from flip_imaging.domain import DATASETS, DatasetAdopted
from flip_imaging.folders import DatasetCase, manifest_of_dataset
from flip_imaging.ports import ImportProblem
from flip_imaging.pseudonyms import ProjectKey
from flip_imaging.ready_dataset import (
    CaseFiles,
    CopiedCase,
    DatasetProblem,
    Description,
    NotUsable,
    copy_case,
    digest_of,
    read_dataset,
)
from flip_imaging.reports import tell_dataset, tell_withdrawal
from flip_imaging.trust import TrustSide

NAME = re.compile(r"Dataset\d{3}_[A-Za-z0-9_-]{1,64}")
MOST_PROBLEMS = 100
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class DatasetReport(BaseModel):
    """What a data set holds. `cases` maps the name of each case to its pseudonym.

    `labels` names the structures with their value, `cases_by_label` tells in how many cases each occurs.
    `sha256` (`flip_imaging.ready_dataset.digest_of`) is None where there are problems; of these the first hundred are
    listed, and `problems_in_all` counts them.
    """

    dry_run: bool
    name: str
    sha256: Sha256 | None
    cases: dict[str, str]
    channels: list[str]
    labels: dict[str, int]
    cases_by_label: dict[str, int]
    problems: list[DatasetProblem]
    problems_in_all: int


async def register_dataset(
    side: TrustSide, work: Work, project_id: ProjectId, name: str, *, dry_run: bool
) -> DatasetReport:
    """Check the data set of this name and, unless it is a dry run, let the project's cases be its cases (NNU-12).

    Raises NotFound for a project or a data set that isn't here, Invalid if it can't be used, Refused if it would
    replace what was trained on, or if the disk is full. Then nothing has changed.
    """
    if await store.project_state(work.db, project_id) is None:
        raise NotFound("project-not-found")
    folder = await asyncio.to_thread(_folder, side.settings.datasets, name)
    with side.folders.scratch() as scratch:
        content = scratch / "content"
        content.mkdir()
        description, copied, problems = await _copy(side, project_id, folder, content, keep=not dry_run)
        report = _report(side.key(project_id), name, description, copied, problems, dry_run=dry_run)
        if report.sha256 is not None:
            cases = [DatasetCase(report.cases[case.name], case.copied[:-1], case.copied[-1]) for case in copied]
            await _adopt(side, work, project_id, report, report.sha256, cases, content)
        elif not dry_run:
            raise Invalid("dataset-not-usable", "Nothing was changed.", report=report.model_dump())
    return report


async def withdraw_dataset(side: TrustSide, work: Work, project_id: ProjectId) -> None:
    """Let the project's cases be its studies again. Raises NotFound, or Refused once something was trained on."""
    async with work.db.transaction():
        require(await store.lock_project(work.db, project_id), "project-not-active")
        begun = await store.training_has_begun(work.db, project_id)
        async with work.on(DATASETS, project_id) as dataset:
            dataset.record(domain.drop(dataset.state, project_id, training_has_begun=begun))
        await tell_withdrawal(work, project_id, side.settings.disclosure_threshold)
        await side.write_manifest(work.db, project_id)
    await _tidy(side, work, project_id)


def _folder(datasets: Path | None, name: str) -> Path:
    """The data set's folder, as it really is."""
    if datasets is None:
        raise NotFound("datasets-not-offered", "FLIP_DATASETS names no folder here.")
    if not NAME.fullmatch(name):
        raise Invalid("name-not-valid", "A data set is called DatasetXYZ_name.", field="name")
    root = datasets.resolve()
    folder = (root / name).resolve()
    if not folder.is_dir():
        raise NotFound("dataset-not-found", "There is no such folder.", field="name")
    if not folder.is_relative_to(root):
        raise Invalid("dataset-not-usable", "The folder is a link that leads elsewhere.", field="name")
    return folder


async def _copy(
    side: TrustSide, project_id: ProjectId, folder: Path, content: Path, *, keep: bool
) -> tuple[Description | None, list[CopiedCase], list[DatasetProblem]]:
    try:
        description, cases, problems = await asyncio.to_thread(read_dataset, folder)
    except NotUsable as unusable:
        return None, [], list(unusable.problems)
    key, turn = side.key(project_id), asyncio.Semaphore(side.settings.imports_at_once)

    async def copy(case: CaseFiles) -> CopiedCase | list[DatasetProblem]:
        into = content / key.dataset_case(case.name)
        async with turn:
            into.mkdir()
            try:
                return await side.workshop.run(copy_case, case, description, into)
            except ImportProblem as problem:
                return [DatasetProblem(file=case.name, problem=str(problem))]
            except OSError as error:
                if error.errno in FULL:
                    raise Refused("disk-full", "The data set doesn't fit on the disk.") from error
                return [DatasetProblem(file=case.name, problem=f"can't be copied: {error.strerror}")]
            finally:
                if not keep:
                    await asyncio.to_thread(shutil.rmtree, into)

    tried = await asyncio.gather(*map(copy, cases), return_exceptions=True)  # none may outlive the folder
    copied: list[CopiedCase] = []
    for each in tried:
        if isinstance(each, BaseException):
            raise each
        if isinstance(each, CopiedCase):
            copied.append(each)
        else:
            problems += each
    return description, copied, problems


def _report(
    key: ProjectKey,
    name: str,
    description: Description | None,
    copied: Sequence[CopiedCase],
    problems: Sequence[DatasetProblem],
    *,
    dry_run: bool,
) -> DatasetReport:
    structures = description.structures if description else {}
    found = Counter(value for case in copied for value in case.found)
    return DatasetReport(
        dry_run=dry_run,
        name=name,
        sha256=digest_of(description, copied) if description and not problems else None,
        cases={case.name: key.dataset_case(case.name) for case in copied},
        channels=description.channels if description else [],
        labels=structures,
        cases_by_label={name: found[value] for name, value in structures.items()},
        problems=list(problems[:MOST_PROBLEMS]),
        problems_in_all=len(problems),
    )


async def _adopt(
    side: TrustSide,
    work: Work,
    project_id: ProjectId,
    report: DatasetReport,
    sha256: Sha256,
    cases: Sequence[DatasetCase],
    content: Path,
) -> None:
    manifest = manifest_of_dataset(project_id, sha256, report.channels, report.labels, cases)
    adopted = DatasetAdopted(
        project_id=project_id,
        name=report.name,
        cases=len(cases),
        channels=report.channels,
        labels=report.labels,
        dataset_sha256=sha256,
        manifest_sha256=hashlib.sha256(manifest).hexdigest(),
    )
    async with work.db.transaction():
        require(await store.lock_project(work.db, project_id), "project-not-active")
        stands = await side.dataset_stands(work.db, project_id)
        begun = await store.training_has_begun(work.db, project_id)
        async with work.on(DATASETS, project_id) as dataset:
            events = domain.adopt(dataset.state, adopted, stands=stands, training_has_begun=begun)
            if report.dry_run or not events:
                return
            await asyncio.to_thread(side.folders.take_in, project_id, sha256, manifest, content)
            dataset.record(*events)
        await tell_dataset(work, project_id, side.settings.disclosure_threshold)
        await side.write_manifest(work.db, project_id)
    await _tidy(side, work, project_id)


async def _tidy(side: TrustSide, work: Work, project_id: ProjectId) -> None:
    """Delete what no longer counts, now that this is certain."""
    async with work.db.transaction():
        if await store.lock_project(work.db, project_id):
            await side.remove_other_datasets(work.db, project_id)
