"""A trainer works for the run it was started for, and loads an app by its framework."""

from __future__ import annotations

from pathlib import Path

import pytest
from flip.app import DATA_VARIABLE, RESOURCES_VARIABLE
from flip_apps.files import as_arrays
from flip_apps.site import App, Place
from flip_apps.testing import app_job, write_project
from flip_apps.workers import operations_in_run
from flip_nnunet.message import Message, SiteFailed, failure_of
from flip_nnunet.sandbox import SandboxSettings
from flip_nnunet.site_settings import SiteSettings

FILES = {"trainer.py": b"", "validator.py": b""}


def refuses(place: Place) -> App:
    raise SiteFailed("app-incomplete", f"loaded at {place.site}")


def test_a_job_of_another_run_than_the_trainers_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="run_id"):
        operations_in_run("KCH", "mine", SiteSettings(tmp_path, 1), app_job("another", FILES), refuses)


def test_an_app_is_loaded_as_its_framework_loads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in (DATA_VARIABLE, RESOURCES_VARIABLE):
        monkeypatch.setenv(name, "")
    write_project(tmp_path / "mine", 2, 0, images=False)
    worker = operations_in_run("KCH", "mine", SiteSettings(tmp_path, 1), app_job("mine", FILES), refuses)
    failure = failure_of(worker.handle("install", Message(arrays=as_arrays(FILES))))
    assert failure is not None
    assert failure.detail == "loaded at KCH"


@pytest.mark.requirement("RUN-11")
@pytest.mark.parametrize("framework", ["nvflare", "flower"])
def test_an_app_is_refused_where_the_pod_is_the_box_and_none_of_its_files_is_written(tmp_path: Path, framework: str):
    write_project(tmp_path / "mine", 2, 0, images=False)
    settings = SiteSettings(tmp_path, 1, SandboxSettings(kind="pod"))
    worker = operations_in_run("KCH", "mine", settings, app_job("mine", FILES, framework=framework), refuses)
    failure = failure_of(worker.handle("install", Message(arrays=as_arrays(FILES))))
    assert failure is not None
    assert failure.code == "app-not-boxed"
    assert not settings.work("mine").exists()
