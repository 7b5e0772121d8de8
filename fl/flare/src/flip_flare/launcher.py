"""Starts every job of a Trust in a box: FLARE's own process of the job, and with it all that the job brings or starts.

A component of the client's `resources.json`, in the place of FLARE's own launcher. The job speaks to the hub through
the Trust's long-lived client alone, at the one port that its box can reach; it has no key, and needs none for that.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flip_apps.workers import CODE
from flip_nnunet.attempt import run_of
from flip_nnunet.sandbox import boxed
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.job_def import JobMetaKey
from nvflare.apis.job_launcher_spec import JobProcessArgs, JobProcessEnv
from nvflare.apis.workspace import Workspace
from nvflare.app_common.job_launcher.client_process_launcher import ClientProcessJobLauncher

from flip_flare.provision import NOBODYS_KEY
from flip_flare.site_settings import site_settings

_KEY = Path("startup", "client.key")
"""A job's process loads it when it starts, and needs it only for connections that it does not make from a box."""
_CREDENTIALS = (JobProcessEnv.AUTH_TOKEN, JobProcessEnv.TOKEN_SIGNATURE, JobProcessEnv.SSID)
_PACKAGE = Path(__file__).resolve().parent


class BoxedJobLauncher(ClientProcessJobLauncher):
    """FLARE's launcher of job processes, but what it launches is boxed."""

    def get_command(self, job_meta: Mapping[str, Any], fl_ctx: FLContext) -> str:
        """The command line of the job's process.

        Raises ValueError for a run that the Trust did not prepare, and for code that it cannot box.
        """
        settings = site_settings()
        workspace: Workspace = _property(fl_ctx, FLContextKey.WORKSPACE_OBJECT)
        job_id = job_meta[JobMetaKey.JOB_ID.value]
        if settings.sandbox.kind == "pod" and Path(workspace.get_app_custom_dir(job_id)).is_dir():
            raise ValueError("a job that brings code is not run in the container that holds the Trust's key")
        kit, job = Path(workspace.get_root_dir()), Path(workspace.get_run_dir(job_id))
        apps = [entry for entry in sorted(job.iterdir()) if entry.is_dir()]
        box = settings.box(run_of(job_meta[JobMetaKey.JOB_NAME.value]), _PACKAGE, *CODE)
        box = box.model_copy(
            update={
                "readable": (*box.readable, *_of_the_kit(kit), *_deployed(job, apps)),
                "covered": {kit / _KEY: kit / "local" / NOBODYS_KEY},
                "scratch": (job, *apps),
                "environment": (*box.environment, *_CREDENTIALS, "PYTHONPATH"),
                "port": _parent_port(fl_ctx),
                "folder": job,
            }
        )
        return shlex.join(boxed(shlex.split(super().get_command(job_meta, fl_ctx)), box, settings.sandbox))


def _deployed(job: Path, apps: Sequence[Path]) -> list[Path]:
    """What the hub has sent. FLARE writes beside it, in the job's folder and in the app's, which only the box sees."""
    return [entry for folder in (job, *apps) for entry in sorted(folder.iterdir()) if entry not in apps]


def _of_the_kit(kit: Path) -> list[Path]:
    """The kit's certificates and settings, without its key."""
    return [file for name in ("startup", "local") for file in sorted((kit / name).iterdir()) if file != kit / _KEY]


def _parent_port(fl_ctx: FLContext) -> int:
    """Where the Trust's client listens to its jobs."""
    _, url = _property(fl_ctx, FLContextKey.JOB_PROCESS_ARGS)[JobProcessArgs.PARENT_URL]
    port = urlsplit(url).port
    if port is None:
        raise ValueError(f"the client listens to its jobs at {url!r}, which names no port")
    return port


def _property(fl_ctx: FLContext, name: str) -> Any:
    """What FLARE sets for every launch."""
    if (value := fl_ctx.get_prop(name)) is None:
        raise LookupError(f"FLARE's context has no {name}")
    return value
