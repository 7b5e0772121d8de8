"""A network's tensors that have several names: each travels once, and an app never notices."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from flip_nnunet.message import SiteFailed, Weights
from flip_nnunet.tensors import own_tensors, ties_of

Ties = dict[str, str]
"""The other names of a network's tensors, each with the name under which the tensor travels."""


def untied(tensors: Mapping[str, torch.Tensor]) -> tuple[Weights, Ties]:
    """Each tensor once, by the first of its names, and its other names."""
    weights = {name: tensor.detach().cpu().numpy() for name, tensor in own_tensors(tensors)}
    return weights, {name: owner for name, owner in ties_of(tensors).items() if name != owner}


def with_all_names(weights: Weights, ties: Ties) -> Weights:
    """Weights as a `state_dict` has them: a copy of the tensor by each of its names."""
    return weights | {name: weights[owner].copy() for name, owner in ties.items()}


def by_first_names(weights: Weights, ties: Ties) -> Weights:
    """The opposite. Raises `SiteFailed` where one tensor's names have come to have different values."""
    for name, owner in ties.items():
        if name not in weights:
            continue
        if owner not in weights or not np.array_equal(weights[name], weights[owner], equal_nan=True):
            raise SiteFailed("wrong-tensors", "names of one tensor of the network have different values")
    return {name: array for name, array in weights.items() if name not in ties}
