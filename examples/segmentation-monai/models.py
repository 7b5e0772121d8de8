"""The network, as the platform asks for it."""

from __future__ import annotations

from monai.networks.nets import UNet
from torch import nn


def get_model() -> nn.Module:
    """A small 3D U-Net for background and one structure."""
    return UNet(spatial_dims=3, in_channels=1, out_channels=2, channels=(4, 8), strides=(2,), norm="batch")
