"""Federated nnU-Net over a real Flower net."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from flip_nnunet.testing.local_net import LocalNet, wait_until
from flip_nnunet.testing.net_suite import NetSuite, ending, job_of, prepare, wait_until_nothing_is_left

pytestmark = pytest.mark.parts


def processes_of_net(net: LocalNet) -> list[psutil.Process]:
    """Flower's own processes at the hub and at both sites, with all that they started."""
    kept = [psutil.Process(pid) for pid in net.kept()]
    return [*kept, *(child for process in kept for child in process.children(recursive=True))]


def names_of(net: LocalNet) -> set[str]:
    return {Path(word).name for process in processes_of_net(net) for word in process.cmdline()[:2]}


class TestFlowerNet(NetSuite):
    @pytest.mark.requirement("RUN-11")
    def test_no_process_of_a_net_reports_home_or_may_install_what_a_job_names(self, net: LocalNet):
        """By itself Flower does both."""
        wait_until(lambda: "flower-superexec" in names_of(net), "what starts Flower's ServerApps")
        for process in processes_of_net(net):
            assert process.environ()["FLWR_TELEMETRY_ENABLED"] == "0", process.cmdline()
            assert "--allow-runtime-dependency-installation" not in process.cmdline()

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
