"""Federated nnU-Net over a real FLARE net by mTLS."""

from __future__ import annotations

import json

import pytest
from flip_nnunet.keeper import processes_of
from flip_nnunet.testing.local_net import LocalNet, wait_until
from flip_nnunet.testing.net_suite import NetSuite, ending, job_of, prepare

pytestmark = pytest.mark.parts


class TestFlareNet(NetSuite):
    after_server_was_killed = "lost"

    @pytest.mark.requirement("NNU-2")
    @pytest.mark.requirement("NNU-4")
    def test_a_site_that_trains_by_another_plan_than_the_agreed_one_is_left_out(self, net: LocalNet):
        prepare(net, "other-plan")
        job = net.submit({**job_of("other-plan", iterations=40), "minimum_sites": 1})
        wait_until(lambda: net.events("other-plan", "training-started"), "KCH's first weights, made by the agreed plan")
        plan = net.runs / "KCH" / ".site" / "project" / "runs" / "other-plan" / "plan.json"
        changed = plan.with_name("changed-plan.json")
        changed.write_text(json.dumps({**json.loads(plan.read_text()), "changed": True}))
        changed.replace(plan)
        assert net.wait_for_end(job) == "completed"
        last = net.events("other-plan", "contribution-excluded")[-1]
        assert (last["round"], last["site"], last["reason"]) == (1, "KCH", "wrong-plan")
        assert list(net.events("other-plan", "round-complete")[-1]["sites"]) == ["UCLH"]

    @pytest.mark.requirement("RUN-3")
    def test_a_killed_client_interrupts_its_job_even_if_it_comes_back_at_once(self, net: LocalNet):
        prepare(net, "orphaned")
        job = net.submit(job_of("orphaned"))
        wait_until(lambda: len(net.trainers()) == 2, "a trainer at each site")
        net.kill("KCH")
        assert processes_of(net.kits / "KCH") == []
        net.start("KCH")
        assert net.wait_for_end(job) == "failed"
        last = ending(net, "orphaned")
        assert (last["kind"], last["reason"], list(last["sites"])) == ("interrupted", "sites-silent", ["KCH"])
        net.wait_for_sites()
