"""One real brain becomes fourteen patients a Trust.

The Debian package `mricron-data` holds a T1 scan of one person at 1 mm (`ch2`) and 116 hand-drawn regions on the same
grid (`aal`). KCH takes the deep nuclei of the left hemisphere, UCLH those of the right one, mirrored, so that both see
the same anatomy. Taking every second voxel gives eight disjoint 2 mm lattices: eight patients. Six more are the head
tilted, with a bias field and noise. All are the same brain: they show that the chain works, not that a model
generalises.
"""

import gzip
import itertools
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.affines import from_matvec
from numpy.typing import NDArray
from scipy import ndimage

from flip_local.data.people import HELD_OUT, PATIENTS_A_TRUST, Hospital, Side

STRUCTURES = {1: "striatum", 2: "thalamus", 3: "hippocampus_amygdala"}
"""Label value -> structure; the striatum counts the pallidum in."""

_REGIONS = {1: ("Caudate", "Putamen", "Pallidum"), 2: ("Thalamus",), 3: ("Hippocampus", "Amygdala")}
_MARGIN_VOXELS = 8
_STEP_VOXELS = 2
_OFFSETS = tuple(itertools.product(range(_STEP_VOXELS), range(_STEP_VOXELS), range(_STEP_VOXELS)))
_MAX_TILT_DEGREES = 8.0
_MAX_BIAS = 0.15
_NOISE_SD = 2.0
_GAIN = 4
_MAX_12_BIT = 4095


class AtlasError(ValueError):
    """The installed scan and regions are not the ones this generator knows."""


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """A scan with its labels on one grid.

    `image` (i, j, k) uint16 of 12 bits and `label` (i, j, k) uint8 run to the right, the front and the top;
    `affine` (4, 4) takes voxel indices to millimetres in RAS+ space.
    """

    image: NDArray[np.uint16]
    label: NDArray[np.uint8]
    affine: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Hemisphere:
    """The deep nuclei of one side at 1 mm, mirrored to the left if they are the right ones."""

    image: NDArray[np.float32]
    label: NDArray[np.uint8]
    affine: NDArray[np.float64]


def read_hemisphere(templates: Path, side: Side) -> Hemisphere:
    """Crop the scan in `templates` around the deep nuclei of `side`; `AtlasError` if the files do not fit together."""
    scan, regions = (_read(templates / name) for name in ("ch2.nii.gz", "aal.nii.gz"))
    if scan.shape != regions.shape or not np.array_equal(_affine(scan), _affine(regions)):
        raise AtlasError(f"{templates}: ch2.nii.gz and aal.nii.gz are not on one grid")
    image = np.asanyarray(scan.dataobj).astype(np.float32)
    label = _deep_nuclei(np.asanyarray(regions.dataobj), _region_values(templates / "aal.nii.txt"), side)
    if side == "R":  # the grid is symmetric about x = 0, so the affine holds for the mirrored head as well
        image, label = image[::-1], label[::-1]
    inside = np.argwhere(label > 0)
    start = np.maximum(inside.min(axis=0) - _MARGIN_VOXELS, 0)
    stop = inside.max(axis=0) + _MARGIN_VOXELS + 1
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    return Hemisphere(image[box].copy(), label[box].copy(), _affine(scan) @ from_matvec(np.eye(3), start))


def offset(number: int) -> tuple[int, int, int]:
    """First voxel of the patient's lattice. The held-out patients have one that no training patient uses."""
    last = len(_OFFSETS) - 1
    return _OFFSETS[last if number in HELD_OUT else number % len(_OFFSETS)]


def volume(hemisphere: Hemisphere, at: Hospital, number: int) -> Volume:
    """The scan and labels of patient `number` at 2 mm; the same for the same arguments."""
    if not 0 <= number < PATIENTS_A_TRUST:
        raise ValueError(f"number {number} is not between 0 and {PATIENTS_A_TRUST - 1}")
    image, label = hemisphere.image, hemisphere.label
    if number >= len(_OFFSETS):
        image, label = _another_head(image, label, np.random.default_rng([at.seed, number]))
    first = offset(number)
    lattice = tuple(slice(start, None, _STEP_VOXELS) for start in first)
    return Volume(
        image=np.clip(np.rint(image[lattice] * _GAIN), 0, _MAX_12_BIT).astype(np.uint16),
        label=label[lattice].copy(),
        affine=hemisphere.affine @ from_matvec(np.eye(3) * _STEP_VOXELS, first),
    )


def write_nifti(path: Path, values: NDArray[np.uint16] | NDArray[np.uint8], affine: NDArray[np.float64]) -> None:
    """Write one array as NIfTI in millimetres; images become int16, as they do on their way through DICOM."""
    stored = values.astype(np.int16) if values.dtype == np.uint16 else values
    nifti = nib.Nifti1Image(stored, affine)
    nifti.header.set_xyzt_units("mm")
    path.write_bytes(gzip.compress(nifti.to_bytes(), mtime=0))  # no clock in the file


def _another_head(
    image: NDArray[np.float32], label: NDArray[np.uint8], chance: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Tilt the head, then lay a linear bias field and noise over it. Labels are turned class by class."""
    degrees = chance.uniform(-_MAX_TILT_DEGREES, _MAX_TILT_DEGREES, 3)
    classes = [_turn((label == value).astype(np.float32), degrees) for value in (0, *STRUCTURES)]
    axes = np.meshgrid(*(np.linspace(-1, 1, size) for size in image.shape), indexing="ij")
    bias = 1 + _MAX_BIAS * np.tensordot(chance.uniform(-1, 1, 3), np.stack(axes), axes=1)
    tilted = _turn(image, degrees) * bias + chance.normal(0, _NOISE_SD, image.shape)
    return tilted.astype(np.float32), np.argmax(classes, axis=0).astype(np.uint8)


def _turn(values: NDArray[np.float32], degrees: NDArray[np.float64]) -> NDArray[np.float32]:
    for axes, angle in zip(((0, 1), (0, 2), (1, 2)), degrees, strict=True):
        turned = ndimage.rotate(values, float(angle), axes, reshape=False, order=1, mode="nearest")
        values = np.asarray(turned, np.float32)
    return values


def _deep_nuclei(regions: NDArray[np.uint8], values: dict[str, int], side: Side) -> NDArray[np.uint8]:
    label = np.zeros(regions.shape, np.uint8)
    for structure, names in _REGIONS.items():
        label[np.isin(regions, [values[f"{name}_{side}"] for name in names])] = structure
    return label


def _region_values(path: Path) -> dict[str, int]:
    rows = (line.split() for line in path.read_text(encoding="utf-8").splitlines())
    values = {row[1]: int(row[0]) for row in rows if len(row) > 1}
    wanted = {f"{name}_{side}" for names in _REGIONS.values() for name in names for side in "LR"}
    if missing := wanted - values.keys():
        raise AtlasError(f"{path}: regions missing: {', '.join(sorted(missing))}")
    return values


def _read(path: Path) -> nib.Nifti1Image:
    image = nib.load(path)
    if not isinstance(image, nib.Nifti1Image):
        raise AtlasError(f"{path}: not a NIfTI file")
    if nib.aff2axcodes(image.affine) != ("R", "A", "S"):
        raise AtlasError(f"{path}: axes {nib.aff2axcodes(image.affine)} instead of R, A, S")
    return image


def _affine(image: nib.Nifti1Image) -> NDArray[np.float64]:
    return np.asarray(image.affine, np.float64)
