"""Names that apps share with the platform."""

from __future__ import annotations

from enum import StrEnum


class ResourceType(StrEnum):
    """What is there of a study, each with the files that it has in the study's folder."""

    NIFTI = "NIFTI"
    """`input_*.nii.gz`."""
    SEGMENTATION = "SEGMENTATION"
    """`label_*.nii.gz`, beside the image of the same number."""
    DICOM = "DICOM"
    """`*.dcm`."""


class PTConstants:
    """File names of PyTorch models. The spelling is that of existing apps."""

    PTServerName = "server"
    PTModelName = "model.pt"
    PTModelsDir = "models"
    PTFileModelName = "FL_global_model.pt"
    PTLocalModelName = "local_model.pt"
    CrossValResultsJsonFilename = "cross_val_results.json"
