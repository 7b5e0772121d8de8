"""nnU-Net's preprocessing at a site, kept for every run with the same plan and the same data."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from flip_nnunet.dataset import RawDataset
from flip_nnunet.message import Json, digest
from flip_nnunet.nnunet import in_processes
from flip_nnunet.payload import PLANS_NAME


@dataclass(frozen=True, slots=True)
class PreprocessedCache:
    """Preprocessed data below one folder of a site, by the digest of plan, configuration and data."""

    folder: Path

    def path(self, plan: Json, configuration: str, data_digest: str) -> Path:
        """The `nnUNet_preprocessed` folder for these; it exists only when it is complete."""
        return self.folder / digest({"plan": digest(plan), "configuration": configuration, "data": data_digest})

    def make(
        self, dataset: RawDataset, plan: Json, configuration: str, data_digest: str, planning: Path, processes: int
    ) -> bool:
        """Preprocess unless it was done before; returns whether it was. `planning`: the folder the plan was made in."""
        target = self.path(plan, configuration, data_digest)
        if target.is_dir():
            return True
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".unfinished-") as unfinished:
            made = Path(unfinished) / "made"
            shutil.copytree(planning, made)
            _preprocess(dataset, plan, configuration, made / plan["dataset_name"], processes)
            try:
                made.rename(target)
            except OSError:
                if not target.is_dir():  # else another run has finished the same work in the meantime
                    raise
        return False


def _preprocess(dataset: RawDataset, plan: Json, configuration: str, folder: Path, processes: int) -> None:
    (folder / f"{PLANS_NAME}.json").write_text(json.dumps(plan), "utf-8")
    manager = PlansManager(plan)
    chosen = manager.get_configuration(configuration)
    output = folder / chosen.data_identifier
    output.mkdir()
    preprocessor = chosen.preprocessor_class(verbose=False)
    calls = [
        (str(output / case.name), [str(image) for image in case.images], str(case.label), manager, chosen,
         dataset.schema)
        for case in dataset.cases
    ]  # fmt: skip
    for _ in in_processes(preprocessor.run_case_save, calls, processes):
        pass
