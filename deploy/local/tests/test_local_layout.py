"""A stack's places, identities and secrets."""

import stat

import pytest
from cryptography import x509
from flip_contracts.catalogue import topics
from flip_local import pki, stack
from flip_local.credentials import Credentials
from flip_local.layout import Layout, Net
from flip_local.part import with_dependencies
from flip_local.parts import kits

NETS = tuple(Net(f"net{number}", "nvflare") for number in range(1, 16))
TRUSTS = ("KCH", "UCLH", "GSTT", "RMH")


@pytest.mark.parametrize("layout", [Layout(), Layout(nets=NETS, trusts=TRUSTS)], ids=["default", "largest"])
def test_no_two_parts_have_one_port(layout: Layout):
    assert len(set(layout.ports.values())) == len(layout.ports)
    assert min(layout.ports.values()) >= layout.port_base


def test_a_layout_refuses_more_nets_than_it_has_ports_for():
    with pytest.raises(ValueError, match="15 nets"):
        Layout(nets=(*NETS, Net("net16", "flower")))


@pytest.mark.parametrize("port_base", ["", "80", "many", "65001"])
def test_a_wrong_port_base_is_refused_by_name(port_base: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FLIP_PORT_BASE", port_base)
    with pytest.raises(ValueError, match="FLIP_PORT_BASE"):
        Layout.from_environment()


@pytest.fixture
def layout(tmp_path) -> Layout:
    return Layout(state=tmp_path / "stack")


def test_every_part_comes_after_parts_that_there_are(layout: Layout):
    parts = stack.parts(layout)
    assert {part.name for part in with_dependencies(parts, parts)} == set(parts)


def test_a_net_on_request_is_started_with_all_it_needs_and_by_nothing_else(layout: Layout):
    parts, usual = stack.parts(layout), stack.usual(layout)
    assert {part.name for part in with_dependencies(parts, usual)} == set(usual)
    for net in layout.nets:
        own = {*stack.of_net(layout, net), kits.task_name(net)}
        assert own <= {part.name for part in with_dependencies(parts, stack.of_net(layout, net))}
        assert own & set(usual) == (set() if net.on_request else own)


def test_two_nets_share_no_database_no_port_and_no_kit(layout: Layout):
    controllers = [stack.parts(layout)[net.name].environment for net in layout.nets]
    for own in ("FLIP_POSTGRES", "FLIP_POSTGRES_OWNER", "FLIP_PORT", "FLIP_KIT", "FLIP_ADMIN_KIT", "FLIP_WORK"):
        assert len({environment[own] for environment in controllers}) == len(layout.nets)


def test_no_two_parts_listen_on_one_port(layout: Layout):
    ports = [port for part in stack.parts(layout).values() for port in part.ports]
    assert len(ports) == len(set(ports))


def test_everyone_in_the_topic_catalogue_has_a_certificate_of_their_own(layout: Layout):
    pki.create(layout)
    speakers = {name for topic in topics(layout.trusts) for name in topic.writers | topic.readers}
    subjects = {name: certificate(layout, name).subject.rfc4514_string() for name in speakers}
    assert subjects["trust.KCH"] == "CN=KCH,OU=trust,O=flip"
    assert subjects["service.auth"] == "CN=auth,OU=service,O=flip"
    assert len(set(subjects.values())) == len(speakers)


def test_certificates_are_of_the_stacks_own_authority_and_stay_when_made_again(layout: Layout):
    pki.create(layout)
    authority = x509.load_pem_x509_certificate(layout.ca.read_bytes())
    first = certificate(layout, "trust.KCH")
    first.verify_directly_issued_by(authority)
    pki.create(layout)
    assert certificate(layout, "trust.KCH") == first


def certificate(layout: Layout, principal: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(layout.certificate(principal).read_bytes())


def test_keys_and_secrets_are_readable_by_their_owner_alone(layout: Layout):
    pki.create(layout)
    stack.parts(layout)
    files = [*layout.pki.iterdir(), *layout.secrets.iterdir()]
    assert len(files) > 40
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_a_secret_is_made_once_and_is_not_shared(layout: Layout):
    credentials = Credentials(layout)
    assert credentials.postgres("hub", "auth") == Credentials(layout).postgres("hub", "auth")
    assert credentials.postgres("hub", "auth") != credentials.postgres("KCH", "auth")
    assert credentials.bootstrap_password != credentials.s3[1]
