"""The cohort as a MONAI data set."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from monai.data.dataset import Dataset

from flip.app import FLIP

if TYPE_CHECKING:
    import pandas as pd


class FLIPDataset(Dataset, ABC):
    """A MONAI `Dataset` of the project's studies. A subclass says what a sample is (`_build_datalist`)."""

    def __init__(self, flip: FLIP, project_id: str, query: str, transform: Callable[[Any], Any] | None = None) -> None:
        self.flip = flip
        self.project_id = project_id
        self.query = query
        super().__init__(self._build_datalist(flip.get_dataframe(project_id, query)), transform)

    @abstractmethod
    def _build_datalist(self, dataframe: pd.DataFrame) -> Sequence[dict[str, Any]]:
        """The samples, such as `{"image": path, "label": path}`, of the cohort's frame."""
