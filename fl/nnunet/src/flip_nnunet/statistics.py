"""What a site tells of its images: counts over bins, never a value of a case.

The voxels are drawn as nnU-Net's fingerprint draws them: with replacement, the same number from every case, each case
seeded alike. With the number per case derived from the cases of all sites, the samples of all sites together are those
that nnU-Net would draw from the pooled data.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape
from numpy.typing import NDArray

from flip_nnunet.dataset import RawDataset
from flip_nnunet.fingerprint import HISTOGRAM_LOW, HISTOGRAM_SIZE
from flip_nnunet.message import Array, Json, SiteFailed
from flip_nnunet.nnunet import in_processes
from flip_nnunet.orders import EXTENTS, INTENSITIES, REALS, Counts, Scale, count

_GEOMETRY = "geometry.npz"
_CHUNK = 1 << 22


@dataclass(frozen=True, slots=True)
class Statistics:
    """The drawn voxels and the geometry of the cases, kept in a folder of the site while it is asked about."""

    folder: Path
    channels: int

    @classmethod
    def draw(cls, dataset: RawDataset, folder: Path, voxels_per_case: int, processes: int) -> Statistics:
        """Read every case once; keep `voxels_per_case` foreground voxels a channel (float32) and the geometry."""
        folder.mkdir(parents=True, exist_ok=True)
        statistics = cls(folder, len(dataset.schema["channel_names"]))
        reader = determine_reader_writer_from_dataset_json(
            dataset.schema, str(dataset.cases[0].images[0]), verbose=False
        )
        calls = [
            ([str(image) for image in case.images], str(case.label), reader, voxels_per_case) for case in dataset.cases
        ]
        spacings, shapes, relative_sizes = [], [], []
        streams = [statistics._voxel_file(channel).open("wb") for channel in range(statistics.channels)]
        try:
            for shape, spacing, voxels, _, relative in in_processes(
                DatasetFingerprintExtractor.analyze_case, calls, processes
            ):
                spacings.append(spacing)
                shapes.append(shape)
                relative_sizes.append(relative)
                for stream, drawn in zip(streams, voxels, strict=True):
                    stream.write(np.asarray(drawn, np.float32).tobytes())
        finally:
            for stream in streams:
                stream.close()
        np.savez(
            folder / _GEOMETRY,
            spacings=np.asarray(spacings, np.float64),
            shapes=np.asarray(shapes, np.int64),
            relative_sizes=np.asarray(relative_sizes, np.float64),
        )
        return statistics

    def summaries(self) -> Iterator[tuple[Json, NDArray[np.int64] | None]]:
        """For each channel: how many voxels, whether they are integers; if so, their histogram by unit bins."""
        for channel in range(self.channels):
            total, integer = 0, True
            histogram = np.zeros(HISTOGRAM_SIZE, np.int64)
            for voxels in self._chunks(channel):
                if not np.all(np.isfinite(voxels)):
                    raise SiteFailed("image-not-finite", f"channel {channel} holds a voxel that is not a finite number")
                total += len(voxels)
                bins = voxels.astype(np.float64) - HISTOGRAM_LOW
                integer &= bool(np.all((bins == np.round(bins)) & (bins >= 0) & (bins < HISTOGRAM_SIZE)))
                if integer:
                    histogram += np.bincount(bins.astype(np.int64), minlength=HISTOGRAM_SIZE)
            yield {"count": total, "integer": integer}, histogram if integer else None

    def moments(self, channel: int, centre: float) -> Json:
        """Sum and sum of squares of the distances from `centre`."""
        total, squares = 0.0, 0.0
        for voxels in self._chunks(channel):
            distances = voxels.astype(np.float64) - centre
            total += float(distances.sum())
            squares += float(np.square(distances).sum())
        return {"sum": total, "squares": squares}

    def count_voxels(self, channel: int, query: Json) -> Counts:
        """Count the voxels drawn from a channel by refined bins."""
        return np.stack([count(voxels, INTENSITIES, query) for voxels in self._chunks(channel)]).sum(axis=0)

    def count_geometry(self, column: str, query: Json, target_spacing: NDArray[np.float64] | None) -> Counts:
        """Count a column: `spacing/AXIS`, `shape/AXIS`, `relative_size`, or `new_shape/AXIS` under `target_spacing`."""
        values, scale = self._geometry_column(column, target_spacing)
        return count(values, scale, query)

    def _geometry_column(self, column: str, target_spacing: NDArray[np.float64] | None) -> tuple[Array, Scale]:
        with np.load(self.folder / _GEOMETRY, allow_pickle=False) as geometry:
            spacings, shapes, relative_sizes = geometry["spacings"], geometry["shapes"], geometry["relative_sizes"]
        kind, _, axis = column.partition("/")
        match kind:
            case "relative_size":
                return relative_sizes, REALS
            case "spacing":
                return spacings[:, int(axis)], REALS
            case "shape":
                return _countable(shapes[:, int(axis)]), EXTENTS
            case "new_shape" if target_spacing is not None:
                pairs = zip(shapes, spacings, strict=True)
                resampled = [compute_new_shape(shape, spacing, target_spacing)[int(axis)] for shape, spacing in pairs]
                return _countable(np.array(resampled)), EXTENTS
            case _:
                raise SiteFailed("column-unknown", f"no column {column!r}")

    def _chunks(self, channel: int) -> Iterator[NDArray[np.float32]]:
        """The voxels drawn from a channel, those of all cases one after the other; at least one array."""
        with self._voxel_file(channel).open("rb") as stream:
            yield np.fromfile(stream, np.float32, _CHUNK)
            while (voxels := np.fromfile(stream, np.float32, _CHUNK)).size:
                yield voxels

    def _voxel_file(self, channel: int) -> Path:
        return self.folder / f"channel_{channel}.float32"


def _countable(edges: Array) -> Array:
    if np.any(edges >= 1 << EXTENTS.width):
        raise SiteFailed("image-too-large", f"an image has {1 << EXTENTS.width} or more voxels along one axis")
    return edges
