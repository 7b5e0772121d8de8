"""The main job, played by three people through the gateway: an admin, a researcher, and each Trust's operator."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx
from flip_client import Hub, Problem, TrustOperator, Unreachable
from flip_client.hub import View
from flip_contracts.projects import Framework

from flip_local.credentials import Credentials
from flip_local.data.queries import DEMO_QUERY
from flip_local.layout import Layout

ADMIN = "admin@flip.example"
PASSWORD = "Deep-Nuclei-7"  # noqa: S105 - the demo's own people, on the loopback address
DATASET_ID = 501
ROUNDS = 20
_PATIENCE_S = 900.0
_LOOK_S = 0.3

AWAY = frozenset({httpx.codes.BAD_GATEWAY, httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.GATEWAY_TIMEOUT})
"""What the gateway answers while a service starts again."""

T = TypeVar("T")


class StoryFailed(Exception):
    """A step did not come to its end; the text says which, and what was seen last."""


@dataclass(slots=True)
class Story:
    """One play of the main job on a running stack.

    `step` hears of each step as it begins, `news` of what happens inside one; `times_s` has how long each took;
    `metrics` what each Trust has reported of the round that runs.
    """

    layout: Layout
    folder: Path
    rounds: int = ROUNDS
    step: Callable[[str], None] = print
    news: Callable[[str], None] = print
    times_s: dict[str, float] = field(default_factory=dict[str, float])
    researcher_email: str = ""
    project_id: str = ""
    run_id: str = ""
    results: Path | None = None
    metrics: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])

    def play(self) -> None:
        """From the invitation to the downloaded results. Raises StoryFailed, Problem and Unreachable."""
        self.prepare()
        researcher = self.researcher()
        with self._step("The researcher creates a model and initiates training"):
            self.run_id = self.initiate(researcher, "nvflare", self.rounds)
        with self._step(f"nnU-Net trains {self.rounds} rounds over both Trusts"):
            self._follow(researcher, self.run_id)
        with self._step("The results are downloaded"):
            patience = AWAY | {httpx.codes.NOT_FOUND}
            self.results = self.until(lambda: self._download(researcher), "the results", patience)
        researcher.session.close()

    def prepare(self) -> None:
        """From the invitation to confirmed labels at each Trust. Raises StoryFailed, Problem and Unreachable."""
        admin, researcher = self.admin(), self._hub()
        with self._step("An admin invites a researcher, who sets a password of their own"):
            self._invite(admin, researcher)
        with self._step("The researcher creates a project and asks both Trusts who fits"):
            self._ask(researcher)
        with self._step("The project is staged, and the admin records each Trust's approval"):
            self._approve(admin, researcher)
        with self._step("Each Trust freezes its cohort and pulls the studies into its archive"):
            self._import(researcher)
        with self._step("Each Trust's operator brings the labels, and the researcher confirms them"):
            self._enrich(researcher, Credentials(self.layout))
        for hub in (admin, researcher):
            hub.session.close()

    def train_again(self, framework: Framework, rounds: int) -> str:
        """The researcher trains the same data once more, on a net of `framework`; answers the run's id.

        Raises StoryFailed, Problem and Unreachable.
        """
        researcher = self.researcher()
        with self._step(f"The same data is trained for {rounds} rounds through {framework}"):
            run_id = self.initiate(researcher, framework, rounds)
            self._follow(researcher, run_id)
        researcher.session.close()
        return run_id

    def admin(self) -> Hub:
        """The hub as the admin sees it."""
        return self._logged_in(ADMIN, Credentials(self.layout).bootstrap_password)

    def researcher(self) -> Hub:
        """The hub as the researcher sees it, once `prepare` has invited them."""
        return self._logged_in(self.researcher_email, PASSWORD)

    def _logged_in(self, email: str, password: str) -> Hub:
        hub = self._hub()
        return self.until(lambda: hub.login(email, password) or hub, "the login")

    def ledger(self, run_id: str = "") -> list[View]:
        """What the ledger has of the project up to the end of a run, the story's own if none is named; oldest first.

        As an admin reads it.
        """
        ends = (run_id or self.run_id, "RunFinished")
        admin = self.admin()

        def whole() -> list[View] | None:
            entries = list(admin.ledger(project_id=self.project_id))
            return entries if any((entry["body"].get("run_id"), _name(entry)) == ends for entry in entries) else None

        entries = self.until(whole, "the end of the story in the ledger")
        admin.session.close()
        return entries

    def _hub(self) -> Hub:
        return Hub(self.layout.gateway_url, self.layout.ca)

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        self.step(name)
        began = time.monotonic()
        yield
        self.times_s[name] = time.monotonic() - began

    def until(self, look: Callable[[], T | None], what: str, again_after: frozenset[int] = AWAY) -> T:
        """The first answer of `look` that isn't None; a service that is away for a moment is asked again.

        Raises StoryFailed when patience ends, and Problem where the hub refuses with a status not in `again_after`.
        """
        deadline = time.monotonic() + _PATIENCE_S
        seen = "nothing"
        while time.monotonic() < deadline:
            try:
                found = look()
            except Unreachable as unreachable:
                seen = str(unreachable)
            except Problem as problem:
                if problem.status not in again_after:
                    raise
                seen = str(problem)
            else:
                if found is not None:
                    return found
            time.sleep(_LOOK_S)
        raise StoryFailed(f"{what} did not come within {_PATIENCE_S:.0f} s; seen last: {seen}")

    def _do_once_heard(self, act: Callable[[], View], what: str) -> View:
        """Do what needs a service to have heard of a Trust's report, which no version of one's own writes can name."""
        return self.until(act, what, AWAY | {httpx.codes.CONFLICT})

    # --- the steps ------------------------------------------------------------------------------------------------

    def _invite(self, admin: Hub, researcher: Hub) -> None:
        self.researcher_email = f"ada.{datetime.now(UTC):%Y%m%d.%H%M%S}@flip.example"
        self.until(lambda: admin.invite(self.researcher_email, "researcher"), "the invitation")
        one_time_password = self.until(self._mailed_password, "the invitation's mail")
        try:
            researcher.login(self.researcher_email, one_time_password)
        except Problem as problem:
            self.news(f"the hub insists on a new password: {problem.code}")
        researcher.first_login(self.researcher_email, one_time_password, PASSWORD)

    def _mailed_password(self) -> str | None:
        mails: list[dict[str, Any]] = httpx.get(self.layout.url("smtp-mails"), timeout=10).json()
        for mail in reversed(mails):
            if self.researcher_email in mail["to"]:
                found = re.search(r"^\s*one-time password:\s*(\S+)\s*$", mail["body"], re.IGNORECASE | re.MULTILINE)
                return found.group(1) if found else None
        return None

    def _ask(self, researcher: Hub) -> None:
        trusts = list(self.layout.trusts)
        name = f"Deep nuclei {datetime.now(UTC):%H:%M:%S}"
        purpose = "Segment the deep nuclei on T1 head scans."
        self.project_id = self.until(lambda: researcher.create_project(name, purpose), "the project")["project_id"]
        saved = self.until(lambda: researcher.run_query(self.project_id, DEMO_QUERY, trusts), "the query")
        version = saved["version"]

        def answered() -> View | None:
            view = researcher.query(self.project_id, version)
            waiting = [answer for answer in view["answers"] if answer["state"] in {"sent", "running"}]
            return None if waiting else view

        for answer in self.until(answered, "the Trusts' answers")["answers"]:
            self.news(f"{answer['trust']}: {answer['state']}, persons: {answer['persons']}")
            if answer["state"] != "answered":
                raise StoryFailed(f"{answer['trust']} answered {answer['state']}: {answer.get('reason')}")

    def _approve(self, admin: Hub, researcher: Hub) -> None:
        self._do_once_heard(lambda: researcher.stage(self.project_id, list(self.layout.trusts)), "the staging")
        for trust in self.layout.trusts:
            self._approve_for(admin, trust)
            self.news(f"{trust}: approved")

    def _approve_for(self, admin: Hub, trust: str) -> None:
        reason = "The research board of the Trust agreed."
        self.until(lambda: admin.decide(self.project_id, trust, "approved", reason), f"{trust}'s approval")

    def _import(self, researcher: Hub) -> None:
        told: dict[str, str] = {}

        def ready() -> bool | None:
            trusts = researcher.images(self.project_id)["trusts"]
            for each in trusts:
                state = f"imported {each['counts']['imported']}, failed {each['counts']['failed']}"
                if told.get(each["trust"]) != state:
                    told[each["trust"]] = state
                    self.news(f"{each['trust']}: {state}")
            done = {each["trust"] for each in trusts if each["state"] == "ready"}
            return True if done >= set(self.layout.trusts) else None

        self.until(ready, "the images")

    def _enrich(self, researcher: Hub, credentials: Credentials) -> None:
        for trust in self.layout.trusts:
            operator = TrustOperator(
                self.layout.url(f"imaging-{trust}"), credentials.operator_token_file(trust).read_text()
            )
            folder = self.layout.folder(trust, "operator", "labels")
            self._bring_labels(trust, operator, folder)
            operator.close()
        self._do_once_heard(lambda: researcher.confirm_enrichment(self.project_id), "the confirmation")

    def _bring_labels(self, trust: str, operator: TrustOperator, folder: Path) -> None:
        dry = self.until(lambda: operator.bring_labels(self.project_id, folder, dry_run=True), f"{trust}'s dry run")
        self.news(f"{trust}: dry run, {len(dry['matched'])} labels match")
        self.until(lambda: operator.bring_labels(self.project_id, folder), f"{trust}'s labels")

    def initiate(self, researcher: Hub, framework: Framework, rounds: int, *, minimum_trusts: int | None = None) -> str:
        """Queue a run of a new model, on all images; answers its id. Raises StoryFailed and Problem."""
        name, about = f"nnU-Net 2d, {framework}", "The built-in nnU-Net job."
        model = self.until(
            lambda: researcher.create_model(self.project_id, name, about, framework=framework, job="nnunet"),
            "the model",
        )
        payload = {
            "mode": "training",
            "num_rounds": rounds,
            "dataset_id": DATASET_ID,
            "model_configuration": "2d",
            "device": "cpu",
        }
        queued = self._do_once_heard(
            lambda: researcher.initiate_training(model["model_id"], payload, minimum_trusts=minimum_trusts), "the run"
        )
        return queued["run_id"]

    def _follow(self, researcher: Hub, run_id: str) -> None:
        deadline = time.monotonic() + 4 * _PATIENCE_S
        seen = 0
        while time.monotonic() < deadline:
            try:
                for event in researcher.follow_run(run_id, after=seen):
                    seen = event["number"]
                    self._tell(event)
            except (httpx.TransportError, Unreachable, Problem) as error:
                self.news(f"the live stream broke off ({type(error).__name__}); it goes on behind {seen}")
                time.sleep(1)
            run = self.until(lambda: researcher.run(run_id), "the run's state")
            if run["state"] in {"stopped", "failed"}:
                raise StoryFailed(f"the run is {run['state']}: {run.get('reason')}")
            if run["state"] == "finished":
                return
        raise StoryFailed("the run did not end")

    def _tell(self, event: View) -> None:
        if event["event"] == "metric":
            self.metrics.setdefault(event["trust"], {})[event["name"]] = event["value"]
        elif event["event"] == "round":
            self._tell_round(event)
        else:
            self._tell_news(event)

    def _tell_round(self, event: View) -> None:
        shown = [
            "  ".join([trust, *(f"{name} {metrics[name]:.3f}" for name in ("train_loss", "dice") if name in metrics)])
            for trust, metrics in sorted(self.metrics.items())
        ]
        self.news("   ".join([f"round {event['round'] + 1} of {event['rounds']}", *shown]))
        self.metrics.clear()

    def _tell_news(self, event: View) -> None:
        known = {"at", "attempt", "event", "number"}
        facts = [f"{name}={value}" for name, value in event.items() if name not in known]
        self.news("  ".join([event["event"], *facts]))

    def _download(self, researcher: Hub) -> Path:
        return researcher.download_results(self.run_id, self.folder)


def plan_digests(entries: Iterable[View], run_id: str) -> set[str]:
    """The digests of the plans that the Trusts of a run made; all are equal, or the run would have failed."""
    agreed = [entry["body"] for entry in entries if _name(entry) == "PlanAgreed"]
    return {digest for body in agreed if body["run_id"] == run_id for digest in body["by_trust"].values()}


def _name(entry: View) -> str:
    """The name of what the entry is about, as in `flip.scheduler.RunFinished.v1`."""
    return entry["type"].split(".")[2]
