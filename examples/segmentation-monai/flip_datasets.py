"""The project's studies as MONAI data sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from flip import FLIP
from flip.constants import ResourceType
from flip.utils import FLIPDataset
from monai.transforms import AsDiscreted, Compose, EnsureChannelFirstd, LoadImaged, NormalizeIntensityd

BOTH = ["image", "label"]


class StudyDataset(FLIPDataset):
    """Images with the label beside them; the first `share` of the studies is held out for validation."""

    def __init__(self, flip: FLIP, project_id: str, query: str, share: float, *, held_out: bool) -> None:
        self._share = share
        self._held_out = held_out
        transforms = [
            LoadImaged(BOTH, image_only=True),
            EnsureChannelFirstd(BOTH, channel_dim="no_channel"),
            NormalizeIntensityd("image"),
            AsDiscreted("label", threshold=0.5),
        ]
        super().__init__(flip, project_id, query, Compose(transforms))

    def _build_datalist(self, dataframe: pd.DataFrame) -> Sequence[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for accession_id in dataframe["accession_id"]:
            study = self.flip.get_by_accession_number(self.project_id, accession_id, resource_type=[ResourceType.NIFTI])
            for image in sorted(study.rglob("input_*.nii.gz")):
                label = image.with_name(image.name.replace("input_", "label_"))
                if label.exists():
                    found.append({"image": str(image), "label": str(label)})
        first = max(1, round(len(found) * self._share))
        return found[:first] if self._held_out else found[first:]
