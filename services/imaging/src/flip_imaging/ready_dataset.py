"""A ready nnU-Net data set on the Trust's disk: what it says of itself, which files make a case, and whether each case
can be trained on.

Images are read by SimpleITK, as nnU-Net reads them. It takes a second to load: only the processes that read do.
"""

import hashlib
import re
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Literal, cast

import nibabel as nib
import numpy as np
import orjson
from flip_contracts.base import Sha256
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from flip_imaging.convert import BACKGROUND, LPS_TO_RAS, Grid, Voxels, sha256_of, smallest, write_nifti
from flip_imaging.folders import LABEL_NAME, image_name

if TYPE_CHECKING:
    import SimpleITK

DESCRIPTION = "dataset.json"
IMAGES, LABELS = "imagesTr", "labelsTr"
LARGEST_DESCRIPTION_BYTES = 4 << 20
MOST_VOXELS = 1 << 30
COPY_BYTES = 1 << 20
CASE = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}"
NIFTI = "NiftiImageIO"
READERS = {".nii.gz": NIFTI, ".nii": NIFTI, ".mha": "MetaImageIO", ".nrrd": "NrrdImageIO"}
DIMENSIONS = 3
NIFTI_START = 544
"""Bytes that hold a header, of NIfTI-1 or NIfTI-2, and the four that tell of extensions."""
NIFTI_OFFSET = 352
"""Where the voxels of a NIfTI-1 file begin at the earliest."""
NIFTI_TEXTS = ("data_type", "db_name", "descrip", "aux_file", "intent_name")
NO_GZIP_FIELDS = b"\0"

Name = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{1,64}$")]


class DatasetProblem(BaseModel):
    """Why a data set can't be used: the file below its folder, and what is wrong with it."""

    model_config = ConfigDict(frozen=True)

    file: str
    problem: str


class NotUsable(Exception):
    """The data set can't be used as a whole."""

    def __init__(self, problems: Sequence[DatasetProblem]) -> None:
        super().__init__(problems)
        self.problems = problems


class Description(BaseModel):
    """What of `dataset.json` is used; `labels` has the background, too."""

    model_config = ConfigDict(frozen=True, strict=True)

    channel_names: Annotated[
        dict[str, Name], Field(min_length=1, max_length=100, validation_alias=AliasChoices("channel_names", "modality"))
    ]
    labels: dict[Name, Annotated[int, Field(ge=0, le=255)]]
    num_training: Annotated[PositiveInt, Field(alias="numTraining")]
    file_ending: Literal[".nii.gz", ".nii", ".mha", ".nrrd"]

    @property
    def channels(self) -> list[str]:
        """The names of the channels in their order."""
        return [self.channel_names[str(number)] for number in range(len(self.channel_names))]

    @property
    def structures(self) -> dict[str, int]:
        """The labels without the background."""
        return {name: value for name, value in self.labels.items() if value}

    @property
    def canonical(self) -> bytes:
        """JSON with sorted keys and without blanks, of `channel_names`, `file_ending`, `labels` and `numTraining`."""
        return orjson.dumps(self.model_dump(by_alias=True), option=orjson.OPT_SORT_KEYS)


@dataclass(frozen=True, slots=True)
class CaseFiles:
    """A case as it lies in the data set: an image a channel, and its label map."""

    name: str
    images: tuple[Path, ...]
    label: Path

    @property
    def files(self) -> tuple[Path, ...]:
        """The images in the order of the channels, then the label map."""
        return (*self.images, self.label)


@dataclass(frozen=True, slots=True)
class CopiedCase:
    """A case that can be trained on, and was copied.

    `original` are the digests of the data set's files, `copied` those of the copies, both as in `CaseFiles.files`;
    `found` are the label's values above zero.
    """

    name: str
    original: tuple[Sha256, ...]
    copied: tuple[Sha256, ...]
    found: frozenset[int]


class _Unusable(Exception):
    """What is wrong with one file; the text ends the sentence "this file ..."."""


# --- the data set as a whole --------------------------------------------------------------------------------------


def read_description(content: bytes) -> Description:
    """Parse `dataset.json`. Raises NotUsable with everything that is wrong with it."""
    try:
        said = orjson.loads(content)
    except orjson.JSONDecodeError:
        raise _not_usable(["is no JSON"]) from None
    if not isinstance(said, dict):
        raise _not_usable(["is no JSON object"])
    if kinds := list(_unsupported(cast("dict[str, Any]", said))):
        raise _not_usable(kinds)
    try:
        description = Description.model_validate(said)
    except ValidationError as error:
        raise _not_usable([_told(each["loc"], each["msg"]) for each in error.errors()]) from None
    if wrong := list(_contradictions(description)):
        raise _not_usable(wrong)
    return description


def _unsupported(said: Mapping[str, Any]) -> Iterator[str]:
    labels = said.get("labels")
    names = cast("dict[str, Any]", labels) if isinstance(labels, dict) else {}
    if "regions_class_order" in said or any(isinstance(value, list) for value in names.values()):
        yield "labels: regions (lists of values, regions_class_order) aren't supported; give each structure one value"
    if "ignore" in names:
        yield "labels: an ignore label isn't supported; every voxel is trained on"
    if "dataset" in said:
        yield "dataset: a list of files isn't supported; they are found in imagesTr and labelsTr by their names"
    if "modality" in said and said.get("channel_names", said["modality"]) != said["modality"]:
        yield "channel_names: contradicts modality"


def _contradictions(description: Description) -> Iterator[str]:
    if set(description.channel_names) != {str(number) for number in range(len(description.channel_names))}:
        yield 'channel_names: the keys must be "0", "1" and so on, without a gap'
    if description.labels.get(BACKGROUND) != 0:
        yield "labels: background must be there, with the value 0"
    if sorted(description.labels.values()) != list(range(len(description.labels))):
        yield "labels: the values must be 0, 1, 2 and so on, each once, without a gap"
    if len(description.labels) == 1:
        yield "labels: names no structure"


def _told(loc: Sequence[int | str], message: str) -> str:
    return f"{'.'.join(map(str, loc))}: {message}"


def _not_usable(told: Sequence[str]) -> NotUsable:
    return NotUsable([DatasetProblem(file=DESCRIPTION, problem=each) for each in told])


def read_dataset(folder: Path) -> tuple[Description, list[CaseFiles], list[DatasetProblem]]:
    """What the data set says of itself, its complete cases by name, and what is wrong with the list of its files.

    Raises NotUsable where `dataset.json` can't be used or a folder is missing. No image is opened.
    """
    if problem := _not_within(folder / DESCRIPTION, folder):
        raise _not_usable([problem])
    try:
        with (folder / DESCRIPTION).open("rb") as file:
            content = file.read(LARGEST_DESCRIPTION_BYTES + 1)
    except OSError:
        raise _not_usable(["can't be opened"]) from None
    if len(content) > LARGEST_DESCRIPTION_BYTES:
        raise _not_usable(["is larger than 4 MiB"])
    description = read_description(content)
    cases, problems = _find_cases(folder, description)
    if len(cases) != description.num_training and not problems:
        told = f"numTraining: says {description.num_training}, but there are {len(cases)} cases"
        problems.append(DatasetProblem(file=DESCRIPTION, problem=told))
    return description, cases, problems


def _find_cases(folder: Path, description: Description) -> tuple[list[CaseFiles], list[DatasetProblem]]:
    ending = re.escape(description.file_ending)
    images, stray_images = _matching(folder / IMAGES, re.compile(rf"({CASE})_(\d{{4}}){ending}"))
    labels, stray_labels = _matching(folder / LABELS, re.compile(rf"({CASE}){ending}"))
    problems = [
        DatasetProblem(file=str(file.relative_to(folder)), problem="isn't named as a case's file is")
        for file in (*stray_images, *stray_labels)
    ]
    wanted = range(len(description.channels))
    cases: list[CaseFiles] = []
    for name in sorted({name for name, *_ in (*images, *labels)}):
        files = [folder / IMAGES / f"{name}_{channel:04d}{description.file_ending}" for channel in wanted]
        case = CaseFiles(name, tuple(files), folder / LABELS / f"{name}{description.file_ending}")
        wrong = [(file, problem) for file in case.files if (problem := _not_within(file, folder))]
        problems += [DatasetProblem(file=str(file.relative_to(folder)), problem=told) for file, told in wrong]
        if not wrong:
            cases.append(case)
    problems += [
        DatasetProblem(file=str(file.relative_to(folder)), problem="is of a channel that dataset.json doesn't name")
        for (_, channel), file in images.items()
        if int(channel) not in wanted
    ]
    return cases, problems


def _matching(folder: Path, pattern: re.Pattern[str]) -> tuple[dict[tuple[str, ...], Path], list[Path]]:
    """The files by the parts of their names, and those with another name."""
    matching: dict[tuple[str, ...], Path] = {}
    stray: list[Path] = []
    try:
        files = sorted(folder.iterdir())
    except OSError:
        raise NotUsable([DatasetProblem(file=folder.name, problem="is no folder that can be listed")]) from None
    for file in files:
        if match := pattern.fullmatch(file.name):
            matching[match.groups()] = file
        else:
            stray.append(file)
    return matching, stray


def _not_within(file: Path, folder: Path) -> str | None:
    """What is wrong with a file that must lie in the folder, be it by a link."""
    try:
        real = file.resolve(strict=True)
    except (FileNotFoundError, NotADirectoryError):
        return "is missing"
    except (OSError, RuntimeError):
        return "can't be opened"
    if not real.is_relative_to(folder):
        return "is a link that leads out of the data set's folder"
    return None if real.is_file() else "is no file"


def digest_of(description: Description, cases: Sequence[CopiedCase]) -> Sha256:
    """The SHA-256 of the content: a line with `Description.canonical`, then a line for each case by name, which has the
    name and the SHA-256 of each of its files as the operator has them: images by channel, then the label."""
    digest = hashlib.sha256(description.canonical + b"\n")
    for case in sorted(cases, key=lambda case: case.name):
        digest.update(f"{' '.join((case.name, *case.original))}\n".encode())
    return digest.hexdigest()


# --- one case -----------------------------------------------------------------------------------------------------


def copy_case(case: CaseFiles, description: Description, into: Path) -> CopiedCase | list[DatasetProblem]:
    """Copy a case's files into the folder `into` and check the copies, so that a change behind our back can't matter.

    A copy is NIfTI and holds no free text. Raises OSError where the copy can't be written.
    """
    names = [*map(image_name, range(len(case.images))), LABEL_NAME]
    problems: list[DatasetProblem] = []
    taken: list[_Taken] = []
    for file, name in zip(case.files, names, strict=True):
        try:
            taken.append(_take(file, description, into / name, like=taken[0].grid if taken else None))
        except _Unusable as problem:
            where = f"{file.parent.name}/{file.name}"
            problems.append(DatasetProblem(file=where, problem=str(problem)))
    if problems:
        return problems
    original, copied = tuple(each.original for each in taken), tuple(each.copied for each in taken)
    return CopiedCase(case.name, original, copied, taken[-1].found)


@dataclass(frozen=True, slots=True)
class _Taken:
    original: Sha256
    copied: Sha256
    grid: Grid
    found: frozenset[int]


def _take(file: Path, description: Description, to: Path, like: Grid | None) -> _Taken:
    ending = description.file_ending
    theirs = to.with_name(f"theirs-{to.name.removesuffix('.nii.gz')}{ending}")
    original = _copy(file, theirs)
    bare = READERS[ending] == NIFTI and _holds_voxels_alone(theirs)
    grid, voxels = _read(theirs, ending)
    if like is not None and not grid.is_one_with(like):
        raise _Unusable("doesn't lie on the grid of the case's first image")
    found = _values(voxels, description) if to.name == LABEL_NAME else _finite(voxels)
    if bare:
        theirs.rename(to)
        return _Taken(original, original, grid, found)
    theirs.unlink()
    stored = voxels.astype(np.uint8) if to.name == LABEL_NAME else smallest(voxels)
    return _Taken(original, write_nifti(nib.Nifti1Image(stored, grid.affine), to), grid, found)


def _copy(file: Path, to: Path) -> Sha256:
    try:
        source = file.open("rb")
    except OSError:
        raise _Unusable("can't be opened") from None
    with source, to.open("wb") as target:
        shutil.copyfileobj(source, target, COPY_BYTES)
    return sha256_of(to)


def _read(file: Path, ending: str) -> tuple[Grid, Voxels]:
    import SimpleITK  # noqa: PLC0415

    if not _keeps_its_voxels_within(file, ending):
        raise _Unusable("names another file for its voxels")
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO(READERS[ending])
    reader.SetFileName(str(file))
    try:
        reader.ReadImageInformation()
        if reader.GetDimension() != DIMENSIONS:
            raise _Unusable(f"has {reader.GetDimension()} dimensions; {DIMENSIONS} are needed")
        if reader.GetNumberOfComponents() != 1:
            raise _Unusable("has several values in a voxel; each channel needs a file of its own")
        if np.prod(reader.GetSize(), dtype=object) > MOST_VOXELS:
            raise _Unusable(f"has more than {MOST_VOXELS} voxels")
        image = reader.Execute()
        voxels = SimpleITK.GetArrayFromImage(image).T
    except RuntimeError:
        raise _Unusable("can't be read by SimpleITK, with which nnU-Net reads it") from None
    return _grid(image), voxels


def _grid(image: "SimpleITK.Image") -> Grid:
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return Grid(image.GetSize(), LPS_TO_RAS @ affine)


def _finite(voxels: Voxels) -> frozenset[int]:
    if not np.isfinite(voxels).all():
        raise _Unusable("holds values that are not finite")
    return frozenset()


def _values(voxels: Voxels, description: Description) -> frozenset[int]:
    """The values above zero in a label map."""
    values = np.unique(voxels)
    if not np.array_equal(values, np.rint(values)):
        raise _Unusable("holds values that are no whole numbers")
    undeclared = set(values.tolist()) - set(description.labels.values())
    if undeclared:
        raise _Unusable(f"holds values that dataset.json doesn't name: {sorted(undeclared)[:10]}")
    return frozenset(int(value) for value in values if value)


def _keeps_its_voxels_within(file: Path, ending: str) -> bool:
    """MetaImage and NRRD may name any other file for their voxels."""
    with file.open("rb") as content:
        header = content.read(1 << 16)
    if ending == ".mha":
        return re.search(rb"^ElementDataFile\s*=\s*LOCAL\s*$", header, re.MULTILINE) is not None
    if ending == ".nrrd":
        fields = re.split(rb"\r?\n\r?\n", header, maxsplit=1)[0]
        return re.search(rb"^data ?file\s*:", fields, re.MULTILINE | re.IGNORECASE) is None
    return True


def _holds_voxels_alone(file: Path) -> bool:
    """Whether a NIfTI file is compressed, and has no place with free text: gzip's fields, extensions, texts, a tail.

    Raises _Unusable where it ends before its voxels do: SimpleITK takes those for zeros.
    """
    content = _unpack(file) if file.name.endswith(".gz") else _as_it_is(file)
    header = _nifti_header(content.start)
    offset = int(header["vox_offset"])
    end = offset + int(np.prod(header.get_data_shape(), dtype=object)) * header.get_data_dtype().itemsize
    if content.length < end:
        raise _Unusable("is torn")
    texts = b"".join(bytes(header[text]) for text in NIFTI_TEXTS if text in header)
    between = content.start[header.sizeof_hdr : offset]
    return content.bare and content.length == end and offset == NIFTI_OFFSET and not any(texts + between)


def _nifti_header(start: bytes) -> nib.Nifti1Header:
    for kind in (nib.Nifti1Header, nib.Nifti2Header):
        if kind.may_contain_header(start) and start[: kind.sizeof_hdr].find(kind.single_magic) >= 0:
            return kind(start[: kind.sizeof_hdr], check=False)
    raise _Unusable("has no NIfTI header")


@dataclass(frozen=True, slots=True)
class _Unpacked:
    """What a file holds: how it starts, its length in all, whether its container has no place with text."""

    start: bytes
    length: int
    bare: bool


def _as_it_is(file: Path) -> _Unpacked:
    with file.open("rb") as content:
        return _Unpacked(content.read(NIFTI_START), file.stat().st_size, bare=False)


def _unpack(file: Path) -> _Unpacked:
    start, length = b"", 0
    with file.open("rb") as content:
        flags = content.read(4)[3:]
        content.seek(0)
        inflate = zlib.decompressobj(wbits=31)
        for piece in _inflated(content, inflate):
            start += piece[: NIFTI_START - len(start)]
            length += len(piece)
        more = bool(inflate.unused_data or content.read(1))
    return _Unpacked(start, length, bare=flags == NO_GZIP_FIELDS and not more)


def _inflated(content: BinaryIO, inflate: "zlib._Decompress") -> Iterator[bytes]:
    """A gzip file's first member, piece by piece."""
    try:
        while not inflate.eof:
            block = inflate.unconsumed_tail or content.read(COPY_BYTES)
            piece = inflate.decompress(block, COPY_BYTES)
            if not (block or piece):
                raise _Unusable("is torn")
            yield piece
    except zlib.error:
        raise _Unusable("is a damaged gzip file") from None
