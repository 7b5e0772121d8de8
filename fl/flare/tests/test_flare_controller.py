"""The hub's side of a job, with FLARE's own part played by the test: who answers, who fails, when it is to stop."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from flip_flare.controller import FlareSites, NnunetController
from flip_flare.wire import reply_model
from flip_nnunet.conduct import Interrupted
from flip_nnunet.job import Job
from flip_nnunet.message import Message, failure_of
from nvflare.apis.signal import Signal
from nvflare.app_common.abstract.fl_model import FLModel

TRUSTS = ["KCH", "RJ1", "UCLH"]
JOB: dict[str, Any] = {
    "run_id": "r",
    "dataset_name": "Dataset001_FLIP",
    "seed": 7,
    "payload": {"mode": "training", "num_rounds": 1, "dataset_id": 1, "model_configuration": "2d"},
    "profile": {"name": "test"},
}
Clients = Mapping[str, FLModel | None]
"""What each client answers, in this order; None where its task ends without an answer."""


class Played(NnunetController):
    """A controller whose task is answered at once by `clients`; it is over when each of them has had its turn."""

    def __init__(self, clients: Clients, *, aborted: bool = False) -> None:
        super().__init__("/unused", 1, TRUSTS, JOB)
        self._answering = dict(clients)
        self.taken_back = False
        self.abort_signal = Signal()
        if aborted:
            self.abort_signal.trigger("stopped")

    def send_model(self, *_: Any, callback: Callable[[FLModel], None] | None = None, **__: Any) -> None:
        assert callback is not None
        for name in list(self._answering):
            answer = self._answering.pop(name)
            if answer is not None:
                answer.meta = {**(answer.meta or {}), "client_name": name}
                callback(answer)

    def get_num_standing_tasks(self) -> int:
        return 0

    def cancel_all_tasks(self, *_: object, **__: object) -> None:
        self.taken_back = True


def sites(controller: NnunetController) -> FlareSites:
    return FlareSites(controller, TRUSTS, Job.model_validate(JOB))


def test_each_answer_is_given_as_it_comes_and_a_site_without_one_as_silent():
    controller = Played({"UCLH": reply_model(Message({"cases": 3})), "RJ1": None, "KCH": FLModel(params={})})
    answers = list(sites(controller).ask("describe", Message()))
    assert [site for site, _ in answers] == ["UCLH", "KCH", "RJ1"]
    assert answers[0][1].meta == {"cases": 3}
    codes = [failure.code for _, reply in answers[1:] if (failure := failure_of(reply))]
    assert codes == ["malformed-answer", "no-answer"]
    assert controller.taken_back


def test_who_stops_listening_takes_the_task_back():
    controller = Played({site: reply_model(Message()) for site in TRUSTS})
    answers = sites(controller).ask("describe", Message())
    assert next(answers)[0] == "KCH"
    assert not controller.taken_back
    answers.close()
    assert controller.taken_back


@pytest.mark.requirement("NNU-4")
def test_an_answer_that_was_given_is_not_kept_while_the_next_is_waited_for():
    weights = np.ones(3)
    given = weakref.ref(weights)
    clients: dict[str, FLModel | None] = {"UCLH": reply_model(Message({}, {"w": weights})), "KCH": None, "RJ1": None}
    answers = sites(Played(clients)).ask("train_round", Message())
    clients.clear()
    assert next(answers)[0] == "UCLH"
    del weights
    assert next(answers)[0] == "KCH"
    assert given() is None


@pytest.mark.requirement("RUN-6")
def test_sites_that_are_silent_because_the_job_was_aborted_are_not_blamed():
    answers = sites(Played({}, aborted=True)).ask("train_round", Message())
    with pytest.raises(Interrupted, match="abort"):
        next(answers)
