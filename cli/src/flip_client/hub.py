"""A FLIP hub as a Python object: one method a thing that a person can do."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID

from flip_client.session import Session

Id = UUID | str
View = dict[str, Any]
"""What a route answers, as JSON; its fields stand in the service's OpenAPI document."""


def app_files(folder: Path) -> list[str]:
    """The files of an app by their paths in its folder: all but what is hidden and Python's caches."""
    paths = sorted(file.relative_to(folder) for file in folder.rglob("*") if file.is_file())
    return [
        path.as_posix()
        for path in paths
        if not any(part.startswith(".") or part == "__pycache__" for part in path.parts)
    ]


class Hub:
    """Everything one person does at a hub, from login to results. Every method may raise Problem or Unreachable."""

    def __init__(self, url: str, ca: Path | None = None) -> None:
        self.session = Session(url, ca)

    # --- oneself and other people ---------------------------------------------------------------------------------

    def login(self, email: str, password: str) -> None:
        """Log in."""
        self.session.login("/api/auth/login", {"email": email, "password": password})

    def first_login(self, email: str, one_time_password: str, new_password: str) -> None:
        """Log in for the first time, with the invitation's password, and set one's own."""
        self.session.login(
            "/api/auth/first-login",
            {"email": email, "one_time_password": one_time_password, "new_password": new_password},
        )

    def me(self) -> View:
        """Who is logged in."""
        return self.session.get("/api/auth/users/me")

    def invite(self, email: str, role: str) -> View:
        """Invite somebody with one role; the hub mails them a one-time password."""
        return self.session.post("/api/auth/users", {"email": email, "role": role})

    # --- projects -------------------------------------------------------------------------------------------------

    def projects(self, **terms: Any) -> View:
        """The projects one may see, a page of them."""
        return self.session.get("/api/projects", **terms)

    def project(self, project_id: Id) -> View:
        """One project."""
        return self.session.get(f"/api/projects/{project_id}")

    def create_project(self, name: str, description: str, members: list[str] | None = None) -> View:
        """Make a project; members by their addresses."""
        return self.session.post("/api/projects", {"name": name, "description": description, "members": members or []})

    def stage(self, project_id: Id, trusts: list[str]) -> View:
        """Ask these Trusts for approval."""
        return self.session.post(f"/api/projects/{project_id}/stage", {"trusts": trusts})

    def decide(self, project_id: Id, trust: str, decision: str, reason: str) -> View:
        """Record a Trust's decision: approved, declined or withdrawn."""
        return self.session.post(
            f"/api/projects/{project_id}/decisions", {"trust": trust, "decision": decision, "reason": reason}
        )

    def confirm_enrichment(self, project_id: Id) -> View:
        """Confirm that the Trusts' labels are in place."""
        return self.session.post(f"/api/projects/{project_id}/enrichment")

    def timeline(self, project_id: Id) -> Any:
        """Each step of the project with who and when."""
        return self.session.get(f"/api/projects/{project_id}/timeline")

    def create_model(self, project_id: Id, name: str, description: str, framework: str, job: str) -> View:
        """Define a model in an approved project."""
        body = {"name": name, "description": description, "framework": framework, "job": job}
        return self.session.post(f"/api/projects/{project_id}/models", body)

    # --- cohorts and images ---------------------------------------------------------------------------------------

    def run_query(self, project_id: Id, sql: str, trusts: list[str]) -> View:
        """Save a version of the query and send it to these Trusts."""
        return self.session.post(f"/api/cohort/projects/{project_id}/queries", {"sql": sql, "trusts": trusts})

    def query(self, project_id: Id, version: int) -> View:
        """A version of the query with each Trust's answer."""
        return self.session.get(f"/api/cohort/projects/{project_id}/queries/{version}")

    def images(self, project_id: Id) -> View:
        """How far each Trust's images and labels are."""
        return self.session.get(f"/api/imaging/projects/{project_id}")

    # --- a model's files ------------------------------------------------------------------------------------------

    def files(self, model_id: Id) -> View:
        """The model's files as their scans left them, and those that it needs."""
        return self.session.get(f"/api/files/models/{model_id}/files")

    def put_file(self, model_id: Id, path: str, file: Path) -> View:
        """Upload a file under its path in the app, new or in the place of an earlier one."""
        return self.session.upload(f"/api/files/models/{model_id}/files/{quote(path)}", file)

    def remove_file(self, model_id: Id, path: str) -> None:
        """Take a file out of the model."""
        self.session.delete(f"/api/files/models/{model_id}/files/{quote(path)}")

    def download_file(self, model_id: Id, path: str, to: Path) -> Path:
        """Download a file that its scan has accepted."""
        return self.session.download(f"/api/files/models/{model_id}/files/{quote(path)}", to)

    # --- runs and results -----------------------------------------------------------------------------------------

    def initiate_training(
        self,
        model_id: Id,
        payload: View,
        *,
        minimum_trusts: int | None = None,
        resources: View | None = None,
        aggregation_weights: Mapping[str, float] | None = None,
        continues: Id | None = None,
    ) -> View:
        """Queue a run of the model: on at least so many Trusts (None: all), each with `resources`.

        `aggregation_weights` are factors by Trust on the number of its cases when models are averaged. `continues` is
        the earlier run that it goes on from, behind the round before `starting_fed_round` of the payload.
        """
        asked = {
            "minimum_trusts": minimum_trusts,
            "resources": resources,
            "aggregation_weights": dict(aggregation_weights or {}),
            "continues": None if continues is None else str(continues),
        }
        return self.session.post("/api/scheduler/runs", {"model_id": str(model_id), "payload": payload, **asked})

    def run(self, run_id: Id) -> View:
        """A run: its state, its place in the queue, its timeline."""
        return self.session.get(f"/api/scheduler/runs/{run_id}")

    def runs(self, project_id: Id) -> list[View]:
        """The runs of a project."""
        return self.session.get("/api/scheduler/runs", project_id=str(project_id))

    def stop_run(self, run_id: Id) -> View:
        """Stop a run."""
        return self.session.post(f"/api/scheduler/runs/{run_id}/stop")

    def follow_run(self, run_id: Id, after: int = 0) -> Iterator[View]:
        """What happens in a run behind number `after`, as it happens, until it ends."""
        return self.session.events(f"/api/scheduler/runs/{run_id}/live", after)

    def metrics(self, run_id: Id) -> list[View]:
        """The metrics of a run, per Trust and round."""
        return self.session.get(f"/api/scheduler/runs/{run_id}/metrics")

    def metrics_as_csv(self, run_id: Id) -> Iterator[bytes]:
        """The metrics of a run as CSV (RFC 4180), in pieces as they come."""
        return self.session.pieces(f"/api/scheduler/runs/{run_id}/metrics.csv")

    def nets(self) -> list[View]:
        """The nets and what they do."""
        return self.session.get("/api/scheduler/nets")

    def drain_net(self, net: str, because: str, *, draining: bool = True) -> View:
        """Give a net no further run, or let it take runs again."""
        return self.session.put(f"/api/scheduler/nets/{net}/draining", {"draining": draining, "reason": because})

    def retire_net(self, net: str, because: str) -> None:
        """Strike off a net that is gone, or whose controller has lost its database."""
        self.session.post(f"/api/scheduler/nets/{net}/retire", {"reason": because})

    def queue(self) -> list[View]:
        """The waiting runs of all projects, in order."""
        return self.session.get("/api/scheduler/queue")

    def prioritise(self, run_id: Id, priority: int, because: str) -> View:
        """Give a run another priority, from 0 to 9."""
        return self.session.put(f"/api/scheduler/runs/{run_id}/priority", {"priority": priority, "reason": because})

    def weigh(self, project_id: Id, weight: int, because: str) -> View:
        """Give a project another weight, from 1 to 10."""
        return self.session.put(f"/api/scheduler/projects/{project_id}/weight", {"weight": weight, "reason": because})

    def results(self, run_id: Id) -> View:
        """What a run's results are."""
        return self.session.get(f"/api/files/results/{run_id}")

    def download_results(self, run_id: Id, to: Path) -> Path:
        """Download a run's results as one zip."""
        return self.session.download(f"/api/files/results/{run_id}/download", to)

    def rounds(self, run_id: Id) -> list[View]:
        """The completed rounds of a run, and which of them can be downloaded."""
        return self.session.get(f"/api/files/results/{run_id}/rounds")

    def download_round(self, run_id: Id, number: int, to: Path) -> Path:
        """Download the weights after a round; rounds count from 0."""
        return self.session.download(f"/api/files/results/{run_id}/rounds/{number}/download", to)

    def project_at(self, project_id: Id, moment: datetime) -> View:
        """A project and its models as they stood at a moment."""
        return self.session.get(f"/api/projects/{project_id}/at/{moment.astimezone().isoformat()}")

    # --- the ledger -----------------------------------------------------------------------------------------------

    def ledger(self, **terms: Any) -> Iterator[View]:
        """The entries of the ledger that fit, oldest first, page by page."""
        after = None
        while True:
            page = self.session.get("/api/audit/entries", after=after, **terms)
            yield from page["entries"]
            after = page["next"]
            if after is None:
                return

    def export_ledger(self, to: Path, **terms: Any) -> Path:
        """Copy the ledger, or the entries that fit, into a file; one that was cut short is not left behind."""
        return self.session.download("/api/audit/export", to, **terms)

    def ledger_keys(self, to: Path) -> Path:
        """The public keys that sign the ledger, in PEM, into a file."""
        return self.session.download("/api/audit/keys", to)
