"""Federated nnU-Net over a real Flower net."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil
import pytest
from flip_flower.kit import Net
from flip_flower.provision import Plan, provision
from flip_nnunet.testing.local_net import TRUSTS, LocalNet, wait_until
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

    @pytest.mark.requirement("RUN-3")
    def test_a_node_that_flower_gives_up_because_its_forwarder_hangs_up_ends_and_can_be_started_again(
        self, net: LocalNet
    ):
        about = Net.read(net.kits / "UCLH")
        for part in ("KCH", "server"):
            net.kill(part)
        with Forwarder(about.port) as forwarder:
            provision(Plan(about, TRUSTS, {"KCH": forwarder.port}), net.kits)
            net.start("server")
            wait_until(lambda: net.connected() == ["UCLH"], "the other node")
            net.start("KCH")
            net.wait_for_sites()
            forwarder.hang_up()
            net.wait_until_ended("KCH")
        provision(Plan(about, TRUSTS), net.kits)
        net.start("KCH")
        net.wait_for_sites()


class Forwarder:
    """Passes on what comes in at a port of its own, until it hangs up on everybody."""

    def __init__(self, to: int) -> None:
        self._to = to
        self._hung_up = False
        self._open: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *exits: object) -> None:
        self.hang_up()
        self._listening.close()

    def hang_up(self) -> None:
        self._hung_up = True
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                inward, _ = self._listening.accept()
                if self._hung_up:
                    inward.close()
                    continue
                outward = socket.create_connection(("127.0.0.1", self._to))
                self._open += [inward, outward]
                for source, sink in ((inward, outward), (outward, inward)):
                    threading.Thread(target=_pump, args=(source, sink), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
