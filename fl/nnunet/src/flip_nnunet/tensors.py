"""Which of a network's tensors are one: nnU-Net's networks register most of theirs under several names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

_Storage = tuple[int, tuple[int, ...], tuple[int, ...]]
"""Where a tensor's values lie, and how they are read: a transposed view of a tensor is another one."""


def own_tensors(tensors: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    """The first name of each storage, by the alphabet, with its tensor."""
    seen: set[_Storage] = set()
    for name, tensor in sorted(tensors.items()):
        if _storage(tensor) not in seen:
            seen.add(_storage(tensor))
            yield name, tensor


def ties_of(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """For every name, the one in `own_tensors` that it is another name of."""
    owners = {_storage(tensor): name for name, tensor in own_tensors(tensors)}
    return {name: owners[_storage(tensor)] for name, tensor in tensors.items()}


def _storage(tensor: torch.Tensor) -> _Storage:
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride()
