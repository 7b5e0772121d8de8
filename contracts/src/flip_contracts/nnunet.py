"""The trainers of nnU-Net that a run may name: those of the version that trains, less those that can't be federated.

The platform refuses a name before it queues a run, without nnU-Net at hand. That this list is nnU-Net's own is shown
where nnU-Net is (`fl/nnunet/tests/test_nnunet_trainers.py`).
"""

from collections.abc import Mapping

_PRIMUS = frozenset(
    f"nnUNet_{name}"
    for name in (
        *(f"Primus_{size}_Trainer" for size in "SBML"),
        *("Primus_M_Trainer_BS8", "Primus_M_Trainer_BS8_2e4"),
        *(f"PrimusV{version}{size}_Trainer" for version in (2, 3) for size in "SBML"),
    )
)
_ADAN = frozenset(f"nnUNetTrainer{name}" for name in ("Adan", "Adan1en3", "Adan3en4", "Adan1en1", "AdanCosAnneal"))
_BENCHMARKS = frozenset({"nnUNetTrainerBenchmark_5epochs", "nnUNetTrainerBenchmark_5epochs_noDataLoading"})

UNFIT: Mapping[str, str] = {
    **dict.fromkeys(_BENCHMARKS, "it keeps no checkpoint, so each round would begin with a new optimiser"),
    **dict.fromkeys(_ADAN, "its optimiser, of the package adan-pytorch, is not installed at the Trusts"),
}
"""Trainers of nnU-Net that can't be federated, with the reason."""

TRAINERS = (
    _PRIMUS
    | UNFIT.keys()
    | {
        "nnUNetTrainer",
        "nnUNetTrainerAdam",
        "nnUNetTrainerAdam1en3",
        "nnUNetTrainerAdam3en4",
        "nnUNetTrainerBN",
        "nnUNetTrainerCELoss",
        "nnUNetTrainerCELoss_5epochs",
        "nnUNetTrainerCosAnneal",
        "nnUNetTrainerDA5",
        "nnUNetTrainerDA5Segord0",
        "nnUNetTrainerDA5_10epochs",
        "nnUNetTrainerDA5ord0",
        "nnUNetTrainerDiceCELoss_noSmooth",
        "nnUNetTrainerDiceLoss",
        "nnUNetTrainerDiceTopK10Loss",
        "nnUNetTrainerNoDA",
        "nnUNetTrainerNoDeepSupervision",
        "nnUNetTrainerNoMirroring",
        "nnUNetTrainerTopk10Loss",
        "nnUNetTrainerTopk10LossLS01",
        "nnUNetTrainerVanillaAdam",
        "nnUNetTrainerVanillaAdam1en3",
        "nnUNetTrainerVanillaAdam3en4",
        "nnUNetTrainer_100epochs",
        "nnUNetTrainer_10epochs",
        "nnUNetTrainer_1epoch",
        "nnUNetTrainer_2000epochs",
        "nnUNetTrainer_2000epochs_NoMirroring",
        "nnUNetTrainer_20epochs",
        "nnUNetTrainer_250epochs",
        "nnUNetTrainer_250epochs_NoMirroring",
        "nnUNetTrainer_4000epochs",
        "nnUNetTrainer_4000epochs_NoMirroring",
        "nnUNetTrainer_500epochs",
        "nnUNetTrainer_50epochs",
        "nnUNetTrainer_5epochs",
        "nnUNetTrainer_750epochs",
        "nnUNetTrainer_8000epochs",
        "nnUNetTrainer_8000epochs_NoMirroring",
        "nnUNetTrainer_DASegOrd0",
        "nnUNetTrainer_DASegOrd0_NoMirroring",
        "nnUNetTrainer_noDummy2DDA",
        "nnUNetTrainer_onlyMirror01",
        "nnUNetTrainer_onlyMirror01_1500ep",
        "nnUNetTrainer_onlyMirror01_DA5",
        "nnUNetTrainer_onlyMirror01_DASegOrd0",
        "nnUNetTrainer_probabilisticOversampling",
        "nnUNetTrainer_probabilisticOversampling_010",
        "nnUNetTrainer_probabilisticOversampling_033",
        "nnUNetTrainer_warmup",
        "nnUNet_Trainer_BS8",
    }
)
"""Every trainer of nnU-Net 2.8.1, those that are not fit as well."""


def fit_trainer(name: str) -> str:
    """The name of a trainer that can be federated. Raises ValueError with what is wrong with any other."""
    if name not in TRAINERS:
        raise ValueError(f"{name!r} is not a trainer of nnU-Net")
    if name in UNFIT:
        raise ValueError(f"{name} can't be federated: {UNFIT[name]}")
    return name
