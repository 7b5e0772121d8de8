"""An app's files: at the hub they come from the run's folder, at a site from the hub, each held to its digest."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from flip_contracts.apps import CONFIG, AppConfig, app_settings, read_config
from flip_nnunet.message import Array

from flip_apps.job import AppJob

FOLDER = "app"
"""Where an app's files lie below a run's folder at the hub."""


class FilesDiffer(Exception):
    """Files are missing, or are not those of the job; the message names the first."""

    code = "files-differ"


def files_of(app: Path) -> dict[str, bytes]:
    """The files of an app's folder as a researcher would upload them."""
    found = sorted(file for file in app.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    return {file.relative_to(app).as_posix(): file.read_bytes() for file in found}


def read_files(run_folder: Path, job: AppJob) -> dict[str, bytes]:
    """The app's files at the hub. Raises `FilesDiffer`."""
    files: dict[str, bytes] = {}
    for name in sorted(job.files):
        file = run_folder / FOLDER / name
        if not file.is_file():
            raise FilesDiffer(f"files: {name} is missing")
        files[name] = file.read_bytes()
    check_files(files, job)
    return files


def check_files(files: Mapping[str, bytes], job: AppJob) -> None:
    """Whether these are the job's files, all of them and no other. Raises `FilesDiffer`."""
    if files.keys() != job.files.keys():
        raise FilesDiffer(f"files: {sorted(files.keys() ^ job.files.keys())[0]} is missing or unknown")
    for name, content in sorted(files.items()):
        if hashlib.sha256(content).hexdigest() != job.files[name]:
            raise FilesDiffer(f"files: {name} has another digest than the job says")


def configuration(job: AppJob, files: Mapping[str, bytes]) -> AppConfig:
    """The app's configuration, with what the run was started with in its place. Raises `AppConfigInvalid`."""
    config = read_config(job.framework, files)
    return config if job.local_rounds is None else config.model_copy(update={"local_rounds": job.local_rounds})


def as_arrays(files: Mapping[str, bytes]) -> dict[str, Array]:
    """Files as a message carries them."""
    return {name: np.frombuffer(content, np.uint8) for name, content in files.items()}


def from_arrays(arrays: Mapping[str, Array]) -> dict[str, bytes]:
    """The files in a message."""
    return {name: array.tobytes() for name, array in arrays.items()}


def install(files: Mapping[str, bytes], job: AppJob, config: AppConfig, folder: Path) -> None:
    """Write the app's files to `folder`, anew; an NVFLARE app's `config.json` with every field of the platform's.

    So an app finds LOCAL_ROUNDS and the others even if it leaves them to their defaults, and finds there what a run
    was started with instead.
    """
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    if job.framework == "nvflare":
        settings = app_settings(files.get(CONFIG)) | config.model_dump(mode="json", by_alias=True)
        (folder / CONFIG).write_text(json.dumps(settings, indent=2), "utf-8")
