"""`flip audit`: exports are copied whole or not at all, and checked without any hub."""

import json
import zipfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs

import pytest
from flip_audit.keys import as_pem
from flip_audit.testing import Invented, invented_key
from flip_client import Hub, Unreachable
from flip_client.command import app
from flip_contracts import ledger
from flip_contracts.ledger import Manifest, Terms
from typer.testing import CliRunner, Result

KEY, OTHER_KEY = invented_key(1), invented_key(2)


@pytest.fixture
async def file(tmp_path: Path) -> Path:
    return await Invented(40, 16, KEY).export(tmp_path / "ledger.zip")


def key_file(folder: Path, public_key: bytes) -> str:
    file = folder / "key.pem"
    file.write_bytes(as_pem(public_key))
    return str(file)


def flip_audit_verify(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["audit", "verify", *arguments])


def changed(file: Path, name: str, change: Callable[[bytes], bytes]) -> str:
    """A copy of the export in which one member is another."""
    copy = file.with_name("changed.zip")
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(copy, "w") as into:
        for each in archive.namelist():
            content = archive.read(each)
            into.writestr(each, change(content) if each == name else content)
    return str(copy)


@pytest.mark.requirement("AUD-2")
def test_an_untouched_export_is_whole_and_says_who_signed_it(file: Path, tmp_path: Path):
    result = flip_audit_verify(str(file), "--key", key_file(tmp_path, KEY.public))
    assert result.exit_code == 0
    assert "every entry up to 40, 3 checkpoints" in result.output
    assert KEY.id in result.output
    assert "Nobody vouches" not in result.output


def test_without_a_key_to_trust_it_says_that_nobody_vouches(file: Path):
    result = flip_audit_verify(str(file))
    assert result.exit_code == 0
    assert "Nobody vouches for this key" in result.output


async def test_a_narrowed_export_says_what_it_was_narrowed_to(tmp_path: Path):
    file = await Invented(40, 16, KEY).export(tmp_path / "some.zip", Terms(actor="user:ada"))
    assert 'fit {"project_id":null,"actor":"user:ada"' in flip_audit_verify(str(file)).output


@pytest.mark.requirement("AUD-2")
def test_a_changed_entry_is_named_in_one_line(file: Path, tmp_path: Path):
    lines_are = changed(file, ledger.ENTRIES, lambda it: it.replace(b'stream_version":23,', b'stream_version":32,'))
    result = flip_audit_verify(lines_are, "--key", key_file(tmp_path, KEY.public))
    assert result.exit_code == 1
    assert result.stderr.startswith("refused: entry 23 was changed")
    assert result.stderr.count("\n") == 1


def test_a_key_that_did_not_sign_is_refused_by_name(file: Path, tmp_path: Path):
    result = flip_audit_verify(str(file), "--key", key_file(tmp_path, OTHER_KEY.public))
    assert result.exit_code == 1
    assert f"signed with the key {KEY.id[:16]}, but the keys to trust are: {OTHER_KEY.id[:16]}" in result.stderr


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_an_export_that_was_cut_short_is_refused(file: Path, share: float):
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    result = flip_audit_verify(str(file))
    assert result.exit_code == 1
    assert "cut short" in result.stderr


@pytest.mark.parametrize("flipped", [100, 1000, 2500])
def test_a_damaged_byte_is_never_passed(file: Path, flipped: int):
    content = bytearray(file.read_bytes())
    content[flipped] ^= 0x10
    file.write_bytes(content)
    assert flip_audit_verify(str(file)).exit_code == 1


def test_an_export_of_a_later_version_is_refused_with_both_versions(file: Path):
    def later(signed: bytes) -> bytes:
        return signed.replace(b"flip.ledger.export.v1", b"flip.ledger.export.v2")

    result = flip_audit_verify(changed(file, ledger.MANIFEST, later))
    assert result.exit_code == 1
    assert "flip.ledger.export.v2" in result.stderr
    assert str(Manifest.model_fields["form"].default) in result.stderr


@pytest.mark.parametrize("content", [b"", b"PK", b"no zip at all", b'{"entries": []}'])
def test_what_is_no_export_is_refused(tmp_path: Path, content: bytes):
    file = tmp_path / "file"
    file.write_bytes(content)
    result = flip_audit_verify(str(file))
    assert result.exit_code == 1
    assert "is no export" in result.stderr


def test_a_zip_of_something_else_is_no_export(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as other:
        other.writestr("readme", "hello")
    assert "no export of a ledger" in flip_audit_verify(str(tmp_path / "other.zip")).stderr


def test_a_key_file_without_a_key_is_refused(tmp_path: Path):
    (tmp_path / "key.pem").write_text("no key")
    (tmp_path / "file").write_bytes(b"PK")
    result = flip_audit_verify(str(tmp_path / "file"), "--key", str(tmp_path / "key.pem"))
    assert result.exit_code == 1
    assert "no public key" in result.stderr


# --- searching and copying ------------------------------------------------------------------------------------------

ENTRY = {
    "type": "flip.projects.ProjectApproved.v1",
    "time": "2026-01-02T03:04:05.678901+00:00",
    "actor": "user:ada",
    "key": "7",
    "body": {"project_id": "7", "trust": "KCH"},
}


@dataclass
class Sent:
    """A hub that answers, and what it was asked."""

    url: str
    paths: list[str] = field(default_factory=list[str])


@contextmanager
def hub_that_sends(body: bytes = b"", promised: int | None = None) -> Generator[Sent]:
    """A hub with one entry, whose export is `body`, of which it promises `promised` bytes."""
    answers = {"/api/audit/entries": json.dumps({"entries": [ENTRY], "next": None}).encode(), "/api/audit/export": body}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            content = answers.get(path, b'{"access_token": "t"}')
            sent.paths.append(self.path)
            self.send_response(200)
            self.send_header(
                "Content-Length", str(promised or len(content)) if path.endswith("export") else str(len(content))
            )
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET  # noqa: N815 - the names that http.server calls

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Tests need no access log."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        sent = Sent(f"http://127.0.0.1:{server.server_port}")
        Thread(target=server.serve_forever, daemon=True).start()
        yield sent
        server.shutdown()


def flip_at(hub: Sent, folder: Path, *arguments: str) -> Result:
    """Run a command as somebody who is logged in at the hub."""
    (folder / "session.json").write_text(json.dumps({"url": hub.url, "ca": None, "cookies": {}, "versions": {}}))
    return CliRunner(env={"FLIP_CONFIG": str(folder)}).invoke(app, arguments)


def test_the_ledger_is_searched_by_project_actor_type_and_time(tmp_path: Path):
    narrowed = ("--project", "7", "--actor", "user:ada", "--type", "a", "--type", "b", "--since", "2026-01-02T00:00:00")
    with hub_that_sends() as hub:
        result = flip_at(hub, tmp_path, "audit", *narrowed)
    assert "ProjectApproved" in result.output
    asked = parse_qs(hub.paths[-1].partition("?")[2])
    assert (asked["project_id"], asked["actor"], asked["type"]) == (["7"], ["user:ada"], ["a", "b"])
    assert asked["since"][0].startswith("2026-01-02T00:00:00")


def test_an_export_is_narrowed_by_the_same_terms_and_copied_as_it_comes(tmp_path: Path):
    with hub_that_sends(b"PK and more") as hub:
        result = flip_at(hub, tmp_path, "audit", "export", str(tmp_path / "ledger.zip"), "--actor", "user:ada")
    assert result.exit_code == 0
    assert hub.paths[-1] == "/api/audit/export?actor=user%3Aada"
    assert (tmp_path / "ledger.zip").read_bytes() == b"PK and more"


def test_terms_in_front_of_export_are_refused_rather_than_left_out(tmp_path: Path):
    with hub_that_sends(b"PK") as hub:
        result = flip_at(hub, tmp_path, "audit", "--actor", "user:ada", "export", str(tmp_path / "ledger.zip"))
    assert result.exit_code == 2
    assert "/api/audit/export" not in "".join(hub.paths)


def test_a_copy_that_was_cut_short_is_told_and_not_left_behind(tmp_path: Path):
    with hub_that_sends(b"PK and", promised=11) as hub, pytest.raises(Unreachable, match="cut short"):
        Hub(hub.url).export_ledger(tmp_path / "ledger.zip")
    assert list(tmp_path.iterdir()) == []
