"""Enrichment: the Trust's operator brings labels for the studies of a project, as DICOM SEG or NIfTI label maps.

All labels of a request are checked before anything is changed, and a dry run ends there. The report names studies by
their accession numbers: it is for the operator, and never leaves the Trust.
"""

import asyncio
import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from flip_chassis.database import Row
from flip_chassis.refusal import Invalid, NotFound, Refused, require
from flip_chassis.work import Work
from flip_contracts.base import ProjectId
from pydantic import BaseModel
from pydicom import dcmread

from flip_imaging import domain, store
from flip_imaging.convert import ConvertedLabel, convert_nifti_label, convert_segmentation
from flip_imaging.deidentify import Policy, Subject, deidentify_study
from flip_imaging.domain import STUDIES
from flip_imaging.ports import ConversionFailed, ImportProblem
from flip_imaging.pseudonyms import ProjectKey
from flip_imaging.reports import tell_labels
from flip_imaging.trust import TrustSide

HEADER = ["accession_id", "file"]
SEGMENTATIONS = Policy(modalities=frozenset({"SEG"}))
DICOM_MARK, GZIP_MARK = b"DICM", b"\x1f\x8b"


class LabelProblem(BaseModel):
    """Why a label can't be used."""

    accession_id: str
    file: str
    problem: str


class CoverageReport(BaseModel):
    """What the labels of a request cover. Lists hold accession numbers, but `unused_files`.

    `labels` names the structures with their value, `studies_by_label` tells in how many labels each occurs.
    """

    dry_run: bool
    matched: list[str]
    replaced: list[str]
    missing_label: list[str]
    unknown_accession: list[str]
    not_imported: list[str]
    unused_files: list[str]
    problems: list[LabelProblem]
    labels: dict[str, int]
    studies_by_label: dict[str, int]


@dataclass(frozen=True, slots=True)
class Target:
    """The imported study that a label is for; all ids are pseudonyms, `image` is its NIfTI file."""

    study_id: UUID
    case: str
    patient: str
    study_instance_uid: str
    frame_of_reference_uid: str
    image: Path
    label_sha256: str | None


@dataclass(frozen=True, slots=True)
class PreparedLabel:
    """A label map that is ready to be registered, and the de-identified SEG that it came from."""

    target: Target
    label_map: Path
    converted: ConvertedLabel
    segmentation: Path | None
    series_instance_uid: str | None


def read_manifest(content: bytes, files: Iterable[str]) -> dict[str, str]:
    """The file of each accession number. Raises Invalid, naming the line, if the table or a file's name is wrong."""
    try:
        rows = list(csv.reader(io.StringIO(content.decode("utf-8-sig")), strict=True))
    except (UnicodeDecodeError, csv.Error):
        raise Invalid("manifest-not-valid", "The manifest is no CSV table in UTF-8.", field="manifest") from None
    if not rows or rows[0] != HEADER:
        raise Invalid("manifest-not-valid", f"The first line must be {','.join(HEADER)}.", field="manifest", line=1)
    known = set(files)
    manifest: dict[str, str] = {}
    for line, row in enumerate(rows[1:], start=2):
        if len(row) != len(HEADER) or not all(row):
            raise Invalid("manifest-not-valid", "A line has two values.", field="manifest", line=line)
        accession, file = row
        if accession in manifest:
            raise Invalid("manifest-not-valid", "An accession number stands twice.", field="manifest", line=line)
        if file not in known:
            raise Invalid("manifest-not-valid", "The file was not sent.", field="manifest", line=line, file=file)
        manifest[accession] = file
    return manifest


def prepare_label(
    file: Path, target: Target, subject: Subject, key: ProjectKey, names: Mapping[str, int], into: Path
) -> PreparedLabel:
    """Turn a SEG or a NIfTI label map into the study's label map in the folder `into`.

    Raises DeidentificationRefused or ConversionFailed: also if the SEG is of another patient, study or frame of
    reference.
    """
    label_map = into / "label.nii.gz"
    head = file.open("rb").read(132)
    if head[128:] != DICOM_MARK:
        if not names:
            raise ConversionFailed("a NIfTI label map needs the names of its values")
        readable = into / ("theirs.nii.gz" if head.startswith(GZIP_MARK) else "theirs.nii")
        readable.symlink_to(file)
        return PreparedLabel(
            target, label_map, convert_nifti_label(readable, target.image, names, label_map), None, None
        )
    written, report = deidentify_study([file], into, subject, key, SEGMENTATIONS)
    header = dcmread(written[0], stop_before_pixels=True)
    if report.patient != target.patient:
        raise ConversionFailed("the segmentation is of another patient")
    if report.study_instance_uid != target.study_instance_uid:
        raise ConversionFailed("the segmentation is of another study")
    if header.get("FrameOfReferenceUID") != target.frame_of_reference_uid:
        raise ConversionFailed("the segmentation is of another frame of reference")
    converted = convert_segmentation(written[0], target.image, label_map)
    return PreparedLabel(target, label_map, converted, written[0], str(header.SeriesInstanceUID))


async def bring_labels(
    side: TrustSide,
    work: Work,
    project_id: ProjectId,
    manifest: Mapping[str, str],
    files: Mapping[str, Path],
    names: Mapping[str, int],
    scratch: Path,
    *,
    dry_run: bool,
) -> CoverageReport:
    """Check the labels against the project's studies and, unless it is a dry run, register them.

    Raises NotFound for a project that isn't here, Invalid if a label can't be used, Refused if one would replace
    another although training has begun, or if a data set stands in for the studies. Then nothing has changed.
    """
    rows = await store.studies(work.db, project_id)
    if not rows:
        raise NotFound("project-not-found")
    await _require_no_dataset(work, project_id)
    targets = {row["accession_number"]: _target(row, side, project_id) for row in rows if row["state"] == "imported"}
    prepared, problems = await _prepare(side, project_id, manifest, files, names, targets, scratch)
    changed = {a: p for a, p in prepared.items() if p.converted.sha256 != p.target.label_sha256}
    kept = await store.labels(work.db, project_id, without=[p.target.study_id for p in prepared.values()])
    labels, disagreeing = _agree(kept, prepared)
    problems += [LabelProblem(accession_id=a, file=manifest[a], problem=p) for a, p in disagreeing.items()]
    studies = {row["accession_number"] for row in rows}
    report = CoverageReport(
        dry_run=dry_run,
        matched=sorted(prepared),
        replaced=sorted(a for a, p in changed.items() if p.target.label_sha256),
        missing_label=sorted(a for a, t in targets.items() if not t.label_sha256 and a not in prepared),
        unknown_accession=sorted(manifest.keys() - studies),
        not_imported=sorted((manifest.keys() & studies) - targets.keys()),
        unused_files=sorted(files.keys() - set(manifest.values())),
        problems=problems,
        labels=labels,
        studies_by_label=_occurrences(labels, prepared.values()),
    )
    if report.replaced and await store.training_has_begun(work.db, project_id):
        raise Refused("training-has-begun", "A label that was trained on can't be replaced.", replaced=report.replaced)
    if not dry_run:
        if problems:
            raise Invalid("labels-not-usable", "Nothing was changed.", report=report.model_dump())
        await _register(side, work, project_id, list(changed.values()))
    return report


async def _prepare(
    side: TrustSide,
    project_id: ProjectId,
    manifest: Mapping[str, str],
    files: Mapping[str, Path],
    names: Mapping[str, int],
    targets: Mapping[str, Target],
    scratch: Path,
) -> tuple[dict[str, PreparedLabel], list[LabelProblem]]:
    key = side.key(project_id)

    async def prepare(accession: str, target: Target) -> PreparedLabel | LabelProblem:
        into = scratch / target.case
        into.mkdir()
        subject = Subject(project_id, accession)
        file = manifest[accession]
        try:
            return await side.workshop.run(prepare_label, files[file], target, subject, key, names, into)
        except ImportProblem as problem:
            return LabelProblem(accession_id=accession, file=file, problem=str(problem))

    wanted = {accession: targets[accession] for accession in sorted(manifest.keys() & targets.keys())}
    found = dict(zip(wanted, await asyncio.gather(*(prepare(a, t) for a, t in wanted.items())), strict=True))
    prepared = {accession: each for accession, each in found.items() if isinstance(each, PreparedLabel)}
    return prepared, [each for each in found.values() if isinstance(each, LabelProblem)]


async def _register(side: TrustSide, work: Work, project_id: ProjectId, prepared: Sequence[PreparedLabel]) -> None:
    await side.archive.store([label.segmentation for label in prepared if label.segmentation is not None])
    replaced: list[str] = []
    async with work.db.transaction():
        require(await store.lock_project(work.db, project_id), "project-not-active")
        await _require_no_dataset(work, project_id)
        for label in prepared:
            label.label_map.replace(side.folders.label(project_id, label.target.case))
            async with work.on(STUDIES, label.target.study_id) as study:
                before = study.state.label_series
                study.record(
                    domain.register_label(
                        study.state, label.converted.sha256, label.series_instance_uid, label.converted.labels
                    )
                )
            if before is not None and before != label.series_instance_uid:
                replaced.append(before)
        await tell_labels(work, project_id, side.settings.disclosure_threshold)
        await side.write_manifest(work.db, project_id)
    for series in replaced:
        await side.archive.delete_series(series)


async def _require_no_dataset(work: Work, project_id: ProjectId) -> None:
    registered = await store.dataset(work.db, project_id)
    require(registered is None, "dataset-registered", "A ready data set stands in for the project's studies.")


def _target(row: Row, side: TrustSide, project_id: ProjectId) -> Target:
    return Target(
        row["study_id"],
        row["case_name"],
        row["patient"],
        row["study_instance_uid"],
        row["frame_of_reference_uid"],
        side.folders.image(project_id, row["case_name"]),
        row["label_sha256"],
    )


def _agree(kept: Mapping[str, int], prepared: Mapping[str, PreparedLabel]) -> tuple[dict[str, int], dict[str, str]]:
    """The names of all labels with their values, and the accession numbers of those that contradict the ones before."""
    labels = dict(kept)
    disagreeing: dict[str, str] = {}
    for accession, label in prepared.items():
        names = {value: name for name, value in labels.items()}
        for name, value in label.converted.labels.items():
            if labels.get(name, value) != value or names.get(value, name) != name:
                disagreeing[accession] = f"{name} = {value} contradicts another label of the project"
            else:
                labels[name] = value
    return labels, disagreeing


def _occurrences(labels: Mapping[str, int], prepared: Iterable[PreparedLabel]) -> dict[str, int]:
    found: Counter[Any] = Counter(value for label in prepared for value in label.converted.found)
    return {name: found[value] for name, value in labels.items()}
