"""Federated nnU-Net over a real Flower net."""

from __future__ import annotations

import pytest
from flip_nnunet.testing.local_net import LocalNet, wait_until
from flip_nnunet.testing.net_suite import NetSuite, ending, job_of, prepare, wait_until_nothing_is_left

pytestmark = pytest.mark.parts


class TestFlowerNet(NetSuite):
    def give_up(self, net: LocalNet, job: str) -> None:
        net.ask(op="abort", job=job)

    @pytest.mark.requirement("RUN-3")
    def test_a_killed_trainer_interrupts_its_attempt_and_the_reason_names_its_site(self, net: LocalNet):
        prepare(net, "killed")
        job = net.submit(job_of("killed", iterations=100_000))
        wait_until(lambda: net.events("killed", "training-started"), "the first round")
        net.trainer("KCH").kill()
        assert net.wait_for_end(job) == "failed"
        last = ending(net, "killed")
        assert (last["kind"], last["reason"], list(last["sites"])) == ("interrupted", "sites-silent", ["KCH"])
        wait_until_nothing_is_left(net)
