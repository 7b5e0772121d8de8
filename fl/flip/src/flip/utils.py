"""Small helps for apps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from nvflare.apis.dxo import DXO

    from flip.monai import FLIPDataset

__all__ = ["FLIPDataset", "get_model_weights_diff"]


def get_model_weights_diff(original: Mapping[str, Any], new: Mapping[str, Any], iterations: int) -> DXO:
    """`new` minus `original`, tensor by tensor, with `iterations` as its weight in the mean.

    Both hold numpy arrays or PyTorch tensors by name. Raises ValueError if their names or shapes differ.
    """
    from nvflare.apis.dxo import DXO, DataKind, MetaKey  # noqa: PLC0415 - a Flower app has no nvflare

    if original.keys() != new.keys():
        raise ValueError(f"weights: {len(original.keys() ^ new.keys())} names are in one of the models only")
    differences = {name: _difference(name, _array(original[name]), _array(new[name])) for name in original}
    return DXO(DataKind.WEIGHT_DIFF, differences, {MetaKey.NUM_STEPS_CURRENT_ROUND: iterations})


def _difference(name: str, original: np.ndarray, new: np.ndarray) -> np.ndarray:
    if original.shape != new.shape:
        raise ValueError(f"weights: {name} has the shape {new.shape}, not {original.shape}")
    return np.asarray(new - original, original.dtype)


def _array(tensor: Any) -> np.ndarray:
    """A tensor's values, wherever it lives."""
    return tensor.detach().cpu().numpy() if hasattr(tensor, "detach") else np.asarray(tensor)


def __getattr__(name: str) -> Any:
    """`FLIPDataset` only where it is asked for: it needs MONAI."""
    if name != "FLIPDataset":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from flip.monai import FLIPDataset  # noqa: PLC0415

    return FLIPDataset
