"""Made-up images for the benchmarks of federated training: two boxes in noise, elsewhere in each case."""

import json
from pathlib import Path

import nibabel
import numpy as np

SHAPE = (24, 40, 40)


def write_data(folder: Path, name: str, seed: int, cases: int) -> None:
    """Write `folder/nnUNet_raw/NAME` with so many labelled cases; the same seed gives the same cases.

    Intensities and their scale depend on the seed, as if each site had a scanner of its own.
    """
    data, random = folder / "nnUNet_raw" / name, np.random.default_rng(seed)
    for part in ("imagesTr", "labelsTr"):
        (data / part).mkdir(parents=True, exist_ok=True)
    shift, scale = random.uniform(-20, 20), random.uniform(0.8, 1.2)
    for number in range(cases):
        label = np.zeros(SHAPE, np.uint8)
        for value in (1, 2):
            z, y, x = random.integers(2, np.array(SHAPE) - 12)
            label[z : z + 8, y : y + 10, x : x + 10] = value
        image = (random.normal(100, 10, SHAPE) + 80 * label) * scale + shift
        case = f"case_{seed:03d}_{number:03d}"
        image_file = data / "imagesTr" / f"{case}_0000.nii.gz"
        nibabel.Nifti1Image(np.round(image).astype(np.int16), np.eye(4)).to_filename(image_file)
        nibabel.Nifti1Image(label, np.eye(4)).to_filename(data / "labelsTr" / f"{case}.nii.gz")
    description = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "one": 1, "two": 2},
        "numTraining": len(list((data / "labelsTr").iterdir())),
        "file_ending": ".nii.gz",
    }
    (data / "dataset.json").write_text(json.dumps(description))
