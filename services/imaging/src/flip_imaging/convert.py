"""DICOM to NIfTI: a series becomes an image, a segmentation becomes a label map on that image's grid.

DICOM's patient axes are LPS, NIfTI's are RAS; images are written in the orientation closest to RAS+. The rows and
slices of a highdicom volume may run in any direction: arrays are only ever compared through their affines.

highdicom takes 115 MiB and seconds to load. Only the processes that convert load it, not the service.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.filebasedimages import ImageFileError
from pydicom import dcmread
from pydicom.dataset import Dataset

from flip_imaging.ports import ConversionFailed

if TYPE_CHECKING:
    from highdicom import Volume
    from highdicom.seg import Segmentation

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
IMAGE_MODALITIES = frozenset({"CT", "MR", "PT"})
SAME_PLACE_MM = 1e-2
BACKGROUND = "background"

Voxels = npt.NDArray[np.number]


@dataclass(frozen=True, slots=True)
class Grid:
    """Where voxels lie: how many on each axis, and the affine from their indices to millimetres (RAS)."""

    shape: tuple[int, ...]
    affine: npt.NDArray[np.float64]

    def is_one_with(self, other: "Grid") -> bool:
        """Whether the voxels of both lie in the same places."""
        return self.shape == other.shape and np.allclose(self.affine, other.affine, atol=SAME_PLACE_MM)


@dataclass(frozen=True, slots=True)
class ConvertedImage:
    """An image on disk and the series it came from; `sha256` is of the file."""

    sha256: str
    modality: str
    study_instance_uid: str
    series_instance_uid: str
    frame_of_reference_uid: str


@dataclass(frozen=True, slots=True)
class ConvertedLabel:
    """A label map on disk; `labels` names each value above zero that it may hold, `found` are those it does hold."""

    sha256: str
    labels: dict[str, int]
    found: frozenset[int]


def convert_series(files: Iterable[Path], to: Path) -> ConvertedImage:
    """Write the study's longest image series as NIfTI.

    Raises ConversionFailed if it is no regular volume, or if no series is longer than the others.
    """
    series = _longest_series(files)
    with _refusing("the series is no regular volume"):
        datasets = [dcmread(file) for file in series]
        volume = _volume(datasets)
        first = datasets[0]
        image = nib.Nifti1Image(smallest(volume.array), LPS_TO_RAS @ volume.affine)
        return ConvertedImage(
            write_nifti(nib.as_closest_canonical(image), to),
            str(first.Modality),
            str(first.StudyInstanceUID),
            str(first.SeriesInstanceUID),
            str(first.FrameOfReferenceUID),
        )


def convert_segmentation(file: Path, image: Path, to: Path) -> ConvertedLabel:
    """Write a DICOM SEG as label map on the grid of the NIfTI `image`. A voxel's value is its segment's number.

    Raises ConversionFailed if segments overlap, share a name, or don't lie on the image's grid.
    """
    import highdicom as hd  # noqa: PLC0415

    grid = _load(image)
    with _refusing("the segmentation doesn't lie on the image's grid"):
        segmentation = hd.seg.Segmentation.from_dataset(dcmread(file), copy=False)
        labels = _segment_names(segmentation)
        volume = segmentation.get_volume(combine_segments=True)
        geometry = hd.VolumeGeometry(
            LPS_TO_RAS @ _affine(grid),
            grid.shape,
            coordinate_system="PATIENT",
            frame_of_reference_uid=volume.frame_of_reference_uid,
        )
        voxels = volume.match_geometry(geometry, tol=SAME_PLACE_MM).array.astype(np.uint8)
    return _write_label(voxels, grid, labels, to)


def convert_nifti_label(file: Path, image: Path, labels: Mapping[str, int], to: Path) -> ConvertedLabel:
    """Write a NIfTI label map, whose values `labels` names, in the orientation of `image` and with a new header.

    Raises ConversionFailed if it doesn't lie on the image's grid or holds a value without a name.
    """
    grid, theirs = _load(image), _load(file)
    if sorted(theirs.shape) != sorted(grid.shape):  # before a voxel is read: the file may unpack to any size
        raise ConversionFailed("the label map doesn't lie on the image's grid")
    label = nib.as_closest_canonical(theirs)
    if not Grid(label.shape, _affine(label)).is_one_with(Grid(grid.shape, _affine(grid))):
        raise ConversionFailed("the label map doesn't lie on the image's grid")
    values = np.asanyarray(label.dataobj)
    unnamed = set(np.unique(values).tolist()) - {0, *labels.values()}
    if unnamed:
        raise ConversionFailed(f"the label map holds values without a name: {sorted(unnamed)[:10]}")
    return _write_label(values.astype(np.uint8), grid, dict(labels), to)


def sha256_of(file: Path) -> str:
    """The digest of a file's bytes."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _longest_series(files: Iterable[Path]) -> list[Path]:
    by_series: dict[str, list[Path]] = {}
    slices: Counter[str] = Counter()
    for file in files:
        header = dcmread(file, stop_before_pixels=True)
        if header.get("Modality") in IMAGE_MODALITIES:
            uid = str(header.SeriesInstanceUID)
            by_series.setdefault(uid, []).append(file)
            slices[uid] += int(header.get("NumberOfFrames") or 1)
    longest = slices.most_common(2)
    if not longest:
        raise ConversionFailed("the study has no image series")
    if len(longest) > 1 and longest[0][1] == longest[1][1]:
        raise ConversionFailed("several series have the most slices")
    return by_series[longest[0][0]]


def _volume(datasets: Sequence[Dataset]) -> "Volume":
    import highdicom as hd  # noqa: PLC0415

    if len(datasets) == 1:
        return hd.Image.from_dataset(datasets[0], copy=False).get_volume(apply_real_world_transform=False)
    return hd.get_volume_from_series(datasets, apply_real_world_transform=False)


def _segment_names(segmentation: "Segmentation") -> dict[str, int]:
    names = {n: str(segmentation.get_segment_description(n).segment_label) for n in segmentation.segment_numbers}
    labels = {name: number for number, name in names.items()}
    if len(labels) < len(names) or BACKGROUND in labels:
        raise ConversionFailed("two segments share a name, or one is called background")
    return labels


def smallest(values: Voxels) -> Voxels:
    """The values as 16-bit integers if nothing is lost by it, else as 32-bit integers, else as 32-bit floats."""
    if values.size and np.array_equal(values, np.rint(values)):
        for kind in (np.int16, np.int32):
            if np.iinfo(kind).min <= values.min() and values.max() <= np.iinfo(kind).max:
                return values.astype(kind)
    return values.astype(np.float32)


def _write_label(voxels: Voxels, grid: nib.Nifti1Image, labels: dict[str, int], to: Path) -> ConvertedLabel:
    found = frozenset(int(value) for value in np.unique(voxels) if value)
    if not found:
        raise ConversionFailed("the label map is empty")
    return ConvertedLabel(write_nifti(nib.Nifti1Image(voxels, _affine(grid)), to), labels, found)


def write_nifti(image: nib.Nifti1Image, to: Path) -> str:
    """Write whole or not at all; answers the digest. nibabel's gzip has no time stamp: same voxels, same bytes."""
    image.header.set_xyzt_units("mm")
    partial = to.with_name(f".{to.name}")
    nib.save(image, partial)
    digest = sha256_of(partial)
    partial.replace(to)
    return digest


def _load(file: Path) -> nib.Nifti1Image:
    try:
        return nib.Nifti1Image.from_filename(file)
    except (ImageFileError, OSError, ValueError, EOFError):
        raise ConversionFailed("a file is no NIfTI image") from None


def _affine(image: nib.Nifti1Image) -> npt.NDArray[np.float64]:
    if image.affine is None:
        raise ConversionFailed("a NIfTI image has no affine")
    return np.asarray(image.affine, dtype=np.float64)


@contextmanager
def _refusing(what: str) -> Iterator[None]:
    """highdicom and pydicom tell by these exceptions that data aren't what they should be."""
    try:
        yield
    except (ValueError, RuntimeError, AttributeError, KeyError, TypeError, IndexError, NotImplementedError) as error:
        raise ConversionFailed(f"{what} ({type(error).__name__})") from None
