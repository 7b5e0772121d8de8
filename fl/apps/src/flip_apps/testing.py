"""Apps, projects and sites for tests: tiny synthetic studies, and workers that live in the test's own process."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from flip.data import ACCESSION, COHORT, IMAGES, PROJECT, query_digest
from flip_nnunet.message import Answers, Message
from flip_nnunet.testing.local_net import TRUSTS, LocalNet

from flip_apps import hostile
from flip_apps.files import FOLDER
from flip_apps.job import APP, AppJob
from flip_apps.site import DATA, PREPARED, AppWorker, Load

PROJECT_ID = "a-project"
QUERY = query_digest("SELECT accession_id FROM omop.imaging_occurrence")
SIZE = (12, 12, 12)
_SECRETS = {"client.key", "server.key", "key.pem", "executor.secret"}


def write_project(folder: Path, studies: int, seed: int, *, images: bool = True) -> None:
    """What a Trust's worker prepares in a run's folder: a cohort, and a bright box with its mask in each study."""
    data, drawn = folder / DATA, np.random.default_rng(seed)
    names = [f"ACC{seed:02d}{number:03d}" for number in range(studies)]
    for name in names:
        study = data / IMAGES / name
        study.mkdir(parents=True)
        if images:
            _write_study(study, drawn)
    data.mkdir(parents=True, exist_ok=True)
    table = "\n".join([f"{ACCESSION},age", *(f"{name},60" for name in names)]) + "\n"
    (data / COHORT).write_text(table)
    record = {"project_id": PROJECT_ID, "query_sha256": QUERY}
    (data / PROJECT).write_text(json.dumps(record))
    digest = hashlib.sha256(table.encode()).hexdigest()
    (folder / PREPARED).write_text(json.dumps({"project_id": PROJECT_ID, "cases": studies, "digest": digest}))


def _write_study(study: Path, drawn: np.random.Generator) -> None:
    mask = np.zeros(SIZE, np.uint8)
    z, y, x = drawn.integers(1, np.array(SIZE) - 7)
    mask[z : z + 6, y : y + 6, x : x + 6] = 1
    image = drawn.normal(0, 1, SIZE) + 4 * mask
    nibabel.save(nibabel.Nifti1Image(image.astype(np.float32), np.eye(4)), study / "input_0.nii.gz")
    nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), study / "label_0.nii.gz")


def app_job(run_id: str, files: Mapping[str, bytes], **changes: Any) -> dict[str, Any]:
    """The record of a job that trains the app in `files`."""
    given = {
        "kind": APP,
        "framework": "nvflare",
        "run_id": run_id,
        "project_id": PROJECT_ID,
        "query": QUERY,
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        "seed": 7,
    }
    return given | changes


def give_files(files: Mapping[str, bytes], run_folder: Path) -> None:
    """Lay an app's files where the hub looks for them."""
    shutil.rmtree(run_folder / FOLDER, ignore_errors=True)
    for name, content in files.items():
        file = run_folder / FOLDER / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


def with_tries(files: Mapping[str, bytes], script: str, line: str, report: str, net: LocalNet) -> dict[str, bytes]:
    """The app, but for this: before `line` of its `script` it tries to get out of its box, and reports its `tries`."""
    source, folder = files[script].decode(), Path(script).parent
    before, found, _ = source.partition(line)
    assert found, f"{script} has no such line"
    margin = "\n" + before[before.rfind("\n") + 1 :]
    module = ".".join([*folder.parts, Path(hostile.__file__).stem])
    added = margin.join([f"from {module} import failed", "tries = failed()", report, ""])
    return {
        **files,
        script: source.replace(line, added + line, 1).encode(),
        str(folder / "hostile.py"): Path(hostile.__file__).read_bytes(),
        str(folder / "targets.json"): json.dumps(_targets(net)).encode(),
    }


def _targets(net: LocalNet) -> dict[str, Any]:
    """Its server, places elsewhere, another project's image, every key of its kits and the process that runs it."""
    other = net.runs / TRUSTS[0] / "another-projects" / "image.nii.gz"
    other.parent.mkdir(exist_ok=True)
    other.write_bytes(b"theirs")
    secrets = [other, *(file for file in net.kits.rglob("*") if file.name in _SECRETS)]
    return {
        "addresses": [("127.0.0.1", net.port), ("192.0.2.1", 443), ("10.0.0.1", 5432)],
        "secrets": {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in secrets},
        "process": os.getpid(),
        "bytes": 100 * 2**30,
    }


def tries_of(files: Mapping[str, bytes]) -> int:
    """How often an app `with_tries` tries each time."""
    [targets] = (json.loads(content) for name, content in files.items() if Path(name).name == "targets.json")
    return len(targets["addresses"]) + len(targets["secrets"]) + 3


def train_at_home(module: str, app: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a framework's module `local` on an app and on a researcher's own files, which are made in `folder`."""
    write_project(folder, 4, 0)
    data = folder / DATA
    told = {"LOCAL_DEV": "true", "DEV_DATAFRAME": str(data / COHORT), "DEV_IMAGES_DIR": str(data / IMAGES)}
    command = [sys.executable, "-m", module, str(app), "--work", str(folder / "work")]
    return subprocess.run(  # noqa: S603 - this package's own
        command, env=os.environ | told, capture_output=True, text=True, timeout=300, check=False
    )


class AppsHere:
    """`flip_nnunet.federation.Sites` by direct calls."""

    def __init__(self, loads: Mapping[str, Load], data: Path, work: Path, job: AppJob, minimum_cases: int = 1) -> None:
        self.workers = {
            site: AppWorker(site, data / site / job.run_id, work / site, job, minimum_cases, load, boxed=True)
            for site, load in loads.items()
        }

    def names(self) -> list[str]:
        return list(self.workers)

    def ask(self, operation: str, message: Message, sites: Sequence[str] | None = None) -> Answers:
        for site in self.names() if sites is None else sites:
            answer = self.workers[site].handle(operation, Message.from_bytes(message.to_bytes()))
            yield site, Message.from_bytes(answer.to_bytes())
