"""Federated nnU-Net over a real Flower net."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from flip_flower.kit import KEY, SERVER_CERTIFICATE, Net
from flip_flower.provision import Plan, provision
from flip_nnunet.testing.local_net import TRUSTS, LocalNet, wait_until
from flip_nnunet.testing.net_suite import (
    NetSuite,
    assert_finished_as,
    ending,
    job_of,
    prepare,
    wait_until_nothing_is_left,
)

pytestmark = pytest.mark.parts


def processes_of_net(net: LocalNet) -> list[psutil.Process]:
    """Flower's own processes at the hub and at both sites, with all that they started."""
    kept = [psutil.Process(pid) for pid in net.kept()]
    return [*kept, *(child for process in kept for child in process.children(recursive=True))]


def names_of(net: LocalNet) -> set[str]:
    return {Path(word).name for process in processes_of_net(net) for word in process.cmdline()[:2]}


class TestFlowerNet(NetSuite):
    after_server_was_killed = "failed"

    @pytest.mark.requirement("RUN-11")
    def test_no_process_of_a_net_reports_home_or_may_install_what_a_job_names(self, net: LocalNet):
        """By itself Flower does both."""
        wait_until(lambda: "flower-superexec" in names_of(net), "what starts Flower's ServerApps")
        for process in processes_of_net(net):
            assert process.environ()["FLWR_TELEMETRY_ENABLED"] == "0", process.cmdline()
            assert "--allow-runtime-dependency-installation" not in process.cmdline()

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
    def test_a_node_that_was_killed_and_started_again_takes_part_in_the_next_attempt_at_once(
        self, net: LocalNet, reference: dict[str, Any]
    ):
        """By itself Flower turns it away for a minute."""
        prepare(net, "left")
        job = net.submit(job_of("left"))
        wait_until(lambda: net.events("left", "round-complete"), "the end of round 0")
        net.kill("KCH")
        net.start("KCH")
        net.ask(op="abort", job=job)
        again = net.submit(job_of("left", first_round=1), attempt=2)
        assert net.wait_for_end(again) == "completed"
        assert_finished_as(net, "left", reference)

    @pytest.mark.requirement("RUN-3")
    def test_a_node_outlasts_a_forwarder_that_hangs_up_and_then_passes_on_again(
        self, net: LocalNet, forwarder: Forwarder
    ):
        forwarder.to = None
        wait_until(lambda: forwarder.hung_up > 2, "some tries")
        forwarder.passed_on = 0
        forwarder.to = net.port
        wait_until(lambda: forwarder.passed_on, "another try")
        assert net.is_running("KCH")

    @pytest.mark.requirement("RUN-3")
    def test_a_node_that_flower_gives_up_ends_so_that_it_can_be_started_again(
        self, net: LocalNet, forwarder: Forwarder, tmp_path: Path
    ):
        """Flower gives up on a hub with a certificate of another authority."""
        provision(Plan(Net("other", "localhost", net.port, net.port + 1), TRUSTS), tmp_path)
        with stranger(tmp_path / "server") as port:
            forwarder.to = port
            wait_until(lambda: not net.is_running("KCH"), "the end of the node")


class Forwarder:
    """Passes on what comes in at a port of its own, or hangs up where it has nowhere to pass it on to."""

    def __init__(self, to: int) -> None:
        self.hung_up = self.passed_on = 0
        self._to: int | None = to
        self._open: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def to(self) -> int | None:
        return self._to

    @to.setter
    def to(self, port: int | None) -> None:
        self._to = port
        self._hang_up()

    def close(self) -> None:
        self.to = None
        self._listening.close()

    def _hang_up(self) -> None:
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                self._take(self._listening.accept()[0])

    def _take(self, inward: socket.socket) -> None:
        try:
            outward = socket.create_connection(("127.0.0.1", self._to or 0))
        except OSError:
            self.hung_up += 1
            inward.close()
            return
        self.passed_on += 1
        self._open += [inward, outward]
        for source, sink in ((inward, outward), (outward, inward)):
            threading.Thread(target=_pump, args=(source, sink), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


@pytest.fixture
def forwarder(net: LocalNet) -> Iterator[Forwarder]:
    """The way of KCH to the net's server, while the test lasts."""
    way = Forwarder(net.port)
    restart(net, {"KCH": way.port})
    yield way
    way.close()
    restart(net, {})


def restart(net: LocalNet, through: dict[str, int]) -> None:
    """Begin anew with the server, which then counts no node as connected that hasn't spoken to it, and KCH's node."""
    for part in ("KCH", "server"):
        if net.is_running(part):
            net.kill(part)
    provision(Plan(Net.read(net.kits / "UCLH"), TRUSTS, through), net.kits)
    net.start("server")
    wait_until(lambda: net.connected() == ["UCLH"], "the other node")
    net.start("KCH")
    net.wait_for_sites()


@contextmanager
def stranger(kit: Path) -> Iterator[int]:
    """A port at which somebody with the kit of another net's server answers."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(kit / SERVER_CERTIFICATE, kit / KEY)
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            connection, _ = listening.accept()
            with suppress(OSError):
                context.wrap_socket(connection, server_side=True).close()

    threading.Thread(target=serve, daemon=True).start()
    yield listening.getsockname()[1]
