"""The client against a real HTTP server that answers as a hub's services do."""

import json
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from flip_client import Hub, Problem, Unreachable
from flip_client.command import app
from flip_client.story import told
from typer.testing import CliRunner, Result

STREAM = "flip.projects.project/7"


@dataclass
class Answer:
    """What the server says next, on any path."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict[str, str])
    raw: bytes | None = None


@dataclass
class Scripted:
    """The answers to give, in order, and the requests that came."""

    url: str
    answers: list[Answer]
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list[tuple[str, str, dict[str, str]]])
    bodies: list[Any] = field(default_factory=list[Any])


@contextmanager
def hub_that_says(*answers: Answer) -> Generator[Scripted]:
    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            asked = self.rfile.read(int(self.headers.get("content-length", 0)))
            is_json = self.headers.get("content-type") == "application/json"
            script.bodies.append(json.loads(asked) if is_json else asked or None)
            script.requests.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
            said = script.answers.pop(0)
            body = said.raw if said.raw is not None else json.dumps(said.body).encode()
            self.send_response(said.status)
            for name, value in said.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815 - the names that http.server calls

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Tests need no access log."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        script = Scripted(f"http://127.0.0.1:{server.server_port}", list(answers))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield script
        server.shutdown()


LOGGED_IN = Answer(body={"access_token": "first"})


def logged_in(script: Scripted) -> Hub:
    hub = Hub(script.url)
    hub.login("ada@flip.example", "Deep-Nuclei-7")
    return hub


def test_what_was_written_is_named_in_every_later_request():
    wrote = Answer(body={}, headers={"Flip-Version": f"{STREAM}@3"})
    with hub_that_says(LOGGED_IN, wrote, Answer(body={})) as script:
        hub = logged_in(script)
        hub.stage("7", ["KCH"])
        hub.project("7")
    assert "flip-after" not in script.requests[1][2]
    assert script.requests[2][2]["flip-after"] == f"{STREAM}@3"


def test_a_service_that_has_not_heard_yet_is_asked_again():
    behind = Answer(503, {"code": "not-heard-yet"}, {"Retry-After": "0"})
    with hub_that_says(LOGGED_IN, behind, behind, Answer(body={"name": "Deep nuclei"})) as script:
        assert logged_in(script).project("7") == {"name": "Deep nuclei"}


def test_an_access_token_that_ran_out_is_renewed_once():
    expired = Answer(401, {"code": "token-not-valid"})
    with hub_that_says(LOGGED_IN, expired, Answer(body={"access_token": "second"}), Answer(body={})) as script:
        logged_in(script).project("7")
    assert [path for _, path, _ in script.requests][2:] == ["/api/auth/refresh", "/api/projects/7"]
    assert script.requests[3][2]["authorization"] == "Bearer second"


def test_a_refusal_is_a_problem_with_its_code_and_facts():
    refusal = Answer(
        409, {"type": "urn:x", "status": 409, "code": "trusts-without-answer", "detail": "Wait.", "trusts": ["UCLH"]}
    )
    with hub_that_says(LOGGED_IN, refusal) as script, pytest.raises(Problem) as caught:
        logged_in(script).stage("7", ["UCLH"])
    assert (caught.value.status, caught.value.code, caught.value.detail) == (409, "trusts-without-answer", "Wait.")
    assert caught.value.facts == {"trusts": ["UCLH"]}


def test_an_answer_that_is_no_problem_document_is_still_a_problem():
    with hub_that_says(Answer(502, raw=b"<html>")) as script, pytest.raises(Problem) as caught:
        logged_in(script)
    assert (caught.value.status, caught.value.code) == (502, "no-answer")


def test_a_hub_that_is_away_is_said_to_be_unreachable():
    with hub_that_says() as script:
        pass
    with pytest.raises(Unreachable, match="gave no answer"):
        logged_in(script)


@pytest.mark.parametrize("name", ["results.zip", "..%2F..%2Fetc%2Fpasswd", "/etc/passwd"])
def test_a_download_stays_in_its_folder_whatever_the_hub_calls_it(tmp_path: Path, name: str):
    zipped = Answer(raw=b"PK", headers={"Content-Disposition": f"attachment; filename*=UTF-8''{name}"})
    with hub_that_says(LOGGED_IN, Answer(body={}), zipped) as script:
        file = logged_in(script).download_results("9", tmp_path)
    assert file.parent == tmp_path
    assert file.read_bytes() == b"PK"


def test_live_events_come_with_their_name_and_number_and_go_on_where_they_were():
    stream = b'id: 4\nevent: round\ndata: {"round": 0}\n\n: still here\n\nid: 5\nevent: finished\ndata: {}\n\n'
    with hub_that_says(LOGGED_IN, Answer(body={}), Answer(raw=stream)) as script:
        events = list(logged_in(script).follow_run("9", after=3))
    assert events == [{"round": 0, "event": "round", "number": 4}, {"event": "finished", "number": 5}]
    assert script.requests[2][2]["last-event-id"] == "3"


def test_the_ledger_is_read_to_its_end_page_by_page():
    pages = [Answer(body={"entries": [{"number": 1}], "next": "a"}), Answer(body={"entries": [], "next": None})]
    with hub_that_says(LOGGED_IN, *pages) as script:
        entries: Iterator[Any] = logged_in(script).ledger(project_id="7")
        assert list(entries) == [{"number": 1}]
    assert "after=a" in script.requests[2][1]


def test_an_entry_of_the_ledger_is_one_line_with_who_what_and_the_facts():
    entry = {
        "type": "flip.projects.ProjectApproved.v1",
        "time": "2026-01-02T03:04:05.678901+00:00",
        "actor": "user:0193a1b2-c3d4-7e5f-8a6b-7c8d9e0f1a2b",
        "key": "7",
        "body": {"project_id": "7", "trust": "KCH", "reason": "agreed"},
    }
    line = told(entry)
    assert line.startswith("2026-01-02T03:04:05.678")
    assert "ProjectApproved" in line
    assert line.endswith("trust=KCH  reason=agreed")


# --- an app of one's own ----------------------------------------------------------------------------------------------

SCANNING = Answer(202, {"path": "p", "status": "scanning"})


def test_a_file_is_sent_as_it_is_and_sent_again_as_a_whole_to_a_service_that_was_behind(tmp_path: Path):
    content = bytes(range(256)) * 1000
    (tmp_path / "weights.bin").write_bytes(content)
    behind = Answer(503, {"code": "not-heard-yet"}, {"Retry-After": "0"})
    with hub_that_says(LOGGED_IN, Answer(body={}), behind, SCANNING) as script:
        logged_in(script).put_file("7", "data/weights.bin", tmp_path / "weights.bin")
    assert script.requests[-1][:2] == ("PUT", "/api/files/models/7/files/data/weights.bin")
    assert script.bodies[-2:] == [content, content]


@pytest.mark.requirement("RUN-10")
def test_a_folder_is_uploaded_by_paths_without_what_is_hidden_and_pythons_caches(tmp_path: Path):
    app_folder = tmp_path / "app"
    for path in ("trainer.py", "lib/models.py", ".git/config", "lib/__pycache__/models.pyc", "lib/.DS_Store"):
        (app_folder / path).parent.mkdir(parents=True, exist_ok=True)
        (app_folder / path).write_text(path)
    with hub_that_says(LOGGED_IN, *[Answer(body={}), SCANNING] * 2) as script:
        result = flip(script, tmp_path, "files", "put", "7", str(app_folder))
    assert result.exit_code == 0, result.output
    sent = [path for method, path, _ in script.requests if method == "PUT"]
    assert sent == [f"/api/files/models/7/files/{path}" for path in ("lib/models.py", "trainer.py")]


@pytest.mark.requirement("FILE-3")
def test_the_list_of_files_names_those_that_are_missing(tmp_path: Path):
    file = {"path": "trainer.py", "status": "refused", "size_bytes": 9, "reason": "malware-found", "detail": ""}
    required = [{"path": "trainer.py", "present": True}, {"path": "validator.py", "present": False}]
    with hub_that_says(LOGGED_IN, Answer(body={"files": [file], "required": required})) as script:
        result = flip(script, tmp_path, "files", "list", "7")
    assert "malware-found" in result.output
    assert "missing: validator.py" in result.output


def test_a_file_is_taken_out_by_its_path(tmp_path: Path):
    with hub_that_says(LOGGED_IN, Answer(204, raw=b"")) as script:
        assert flip(script, tmp_path, "files", "rm", "7", "lib/models.py").exit_code == 0
    assert script.requests[-1][:2] == ("DELETE", "/api/files/models/7/files/lib/models.py")


@pytest.mark.requirement("RUN-1")
@pytest.mark.parametrize(
    ("options", "payload"), [((), {"mode": "app"}), (("--local-rounds", "3"), {"mode": "app", "local_rounds": 3})]
)
def test_an_app_of_ones_own_is_trained_without_a_payload(
    options: tuple[str, ...], payload: dict[str, Any], tmp_path: Path
):
    with hub_that_says(LOGGED_IN, Answer(202, {})) as script:
        result = flip(script, tmp_path, "train", "7", *options)
    assert result.exit_code == 0, result.output
    assert script.bodies[-1]["payload"] == payload


def test_local_rounds_beside_a_payload_are_refused(tmp_path: Path):
    (tmp_path / "payload.json").write_text("{}")
    with hub_that_says() as script:
        result = flip(script, tmp_path, "train", "7", str(tmp_path / "payload.json"), "--local-rounds", "3")
    assert (result.exit_code, len(script.requests)) == (2, 0)


# --- what a run leaves ------------------------------------------------------------------------------------------------

METRIC = {"trust": "KCH", "round": 3, "name": "loss", "axis": "epoch", "x": 7.5, "value": 0.25}


@pytest.mark.requirement("RUN-8")
def test_metrics_are_shown_with_their_axis_and_their_place_on_it(tmp_path: Path):
    with hub_that_says(LOGGED_IN, Answer(body=[METRIC])) as script:
        result = flip(script, tmp_path, "metrics", "r")
    assert result.exit_code == 0, result.output
    assert [cell.strip() for cell in result.stdout.splitlines()[3].strip("│").split("│")] == [
        *("KCH", "3", "loss", "epoch"),
        *("7.5", "0.25"),
    ]


@pytest.mark.requirement("RUN-8")
def test_metrics_as_csv_are_the_hubs_very_bytes(tmp_path: Path):
    sheet = b"trust,name,value\r\nKCH,loss,0.25\r\n"
    with hub_that_says(LOGGED_IN, Answer(body={}), Answer(raw=sheet)) as script:
        result = flip(script, tmp_path, "metrics", "r", "--csv")
    assert (result.exit_code, result.stdout_bytes) == (0, sheet)
    assert script.requests[-1][:2] == ("GET", "/api/scheduler/runs/r/metrics.csv")


@pytest.mark.requirement("RUN-9")
def test_the_rounds_of_a_run_are_listed_and_one_is_downloaded_under_the_hubs_name(tmp_path: Path):
    listed = {"round": 3, "at": "2026-01-02", "size_bytes": 9, "score": 0.8, "best": True, "deleted": False}
    with hub_that_says(LOGGED_IN, Answer(body=[listed | {"kept_until": "2026-02-01"}])) as script:
        result = flip(script, tmp_path, "rounds", "list", "r")
    assert result.exit_code == 0, result.output
    assert ("2026-02-01" in result.output, script.requests[-1][1]) == (True, "/api/files/results/r/rounds")
    named = {"Content-Disposition": "attachment; filename*=UTF-8''round-00003_r.npz"}
    with hub_that_says(LOGGED_IN, Answer(body={}), Answer(raw=b"weights", headers=named)) as script:
        result = flip(script, tmp_path, "rounds", "get", "r", "3", "--to", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert (tmp_path / "round-00003_r.npz").read_bytes() == b"weights"
    assert script.requests[-1][1] == "/api/files/results/r/rounds/3/download"


# --- operators ------------------------------------------------------------------------------------------------------


def flip(script: Scripted, folder: Path, *arguments: str) -> Result:
    """Run a command as somebody who is logged in."""
    (folder / "session.json").write_text(json.dumps({"url": script.url, "ca": None, "cookies": {}, "versions": {}}))
    return CliRunner(env={"FLIP_CONFIG": str(folder), "COLUMNS": "200"}).invoke(app, arguments)


def parked(number: int) -> dict[str, Any]:
    return {"id": number, "kind": "poison", "type": "some.type", "key": "k", "reason": "ValueError", "attempts": 1}


def test_what_waits_at_every_service_and_net_of_the_hub_is_one_list(tmp_path: Path):
    answers = [Answer(body=[])] * 7
    answers[5] = Answer(body=[parked(17)])  # scheduler's first page, and then its second
    answers.insert(6, Answer(body=[]))
    with hub_that_says(LOGGED_IN, Answer(body=[{"net": "net1"}]), *answers, Answer(body=[])) as script:
        result = flip(script, tmp_path, "events", "parked")
    assert result.exit_code == 0, result.output
    assert ("scheduler" in result.output, "17" in result.output, "auth" in result.output) == (True, True, False)
    asked = [path.partition("?")[0] for _, path, _ in script.requests[2:]]
    assert asked[0] == "/api/auth/operations/parked"
    assert asked[-1] == "/api/trainer-node/net1/operations/parked"


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        (["17"], "/api/files/operations/parked/17/retry"),
        (["--topic", "t", "--key", "k"], "/api/files/operations/parked/retry"),
        (["--type", "some.type"], "/api/files/operations/parked/retry"),
    ],
)
def test_a_record_a_key_or_a_type_is_tried_again(arguments: list[str], path: str, tmp_path: Path):
    with hub_that_says(LOGGED_IN, Answer(status=202, body={"keys": 1})) as script:
        result = flip(script, tmp_path, "events", "retry", "files", *arguments)
    assert result.exit_code == 0, result.output
    assert script.requests[-1][:2] == ("POST", path)


@pytest.mark.parametrize("arguments", [[], ["17", "--type", "x"], ["--topic", "t"], ["--key", "k"]])
def test_what_to_try_again_must_be_named_in_one_way(arguments: list[str], tmp_path: Path):
    with hub_that_says(LOGGED_IN) as script:
        result = flip(script, tmp_path, "events", "retry", "files", *arguments)
    assert (result.exit_code, len(script.requests)) == (2, 1)


@pytest.mark.parametrize(("state", "differing", "code"), [("done", 0, 0), ("done", 2, 1), ("failed", 0, 1)])
def test_a_rebuild_is_waited_for_and_a_difference_is_a_failure(state: str, differing: int, code: int, tmp_path: Path):
    over = {"rebuild_id": "r", "state": state, "tables": [{"table": "run", "differing": differing}]}
    running = {**over, "state": "running"}
    with hub_that_says(LOGGED_IN, Answer(status=202, body=running), Answer(body=running), Answer(body=over)) as script:
        result = flip(script, tmp_path, "projections", "rebuild", "scheduler", "--swap")
    assert result.exit_code == code
    assert [path for _, path, _ in script.requests[1:]] == [
        "/api/scheduler/operations/rebuilds",
        *["/api/scheduler/operations/rebuilds/r"] * 2,
    ]


@pytest.mark.requirement("NNU-12")
def test_an_operator_registers_a_ready_data_set_and_gives_it_up(tmp_path: Path):
    token = tmp_path / "token"
    token.write_text("the-operators-token\n")
    with hub_that_says(Answer(body={"sha256": "a" * 64}), Answer(status=204, raw=b"")) as script:
        there = ("--url", script.url, "--token-file", str(token))
        assert flip(script, tmp_path, "dataset", "p", *there, "--name", "Dataset001_Brain", "--dry-run").exit_code == 0
        assert flip(script, tmp_path, "dataset", "p", *there, "--withdraw").exit_code == 0
        assert flip(script, tmp_path, "dataset", "p", *there).exit_code == 2
    route = "/api/imaging/trust/projects/p/dataset"
    assert [path for _, path, _ in script.requests] == [f"{route}?dry_run=true", route]


def test_at_a_trust_the_operators_token_is_sent_to_the_service_inside(tmp_path: Path):
    token = tmp_path / "token"
    token.write_text("the-operators-token\n")
    with hub_that_says(Answer(body=[])) as script:
        there = ("--trust-url", script.url, "--token-file", str(token))
        assert flip(script, tmp_path, "events", "parked", "cohort", *there).exit_code == 0
    assert script.requests[0][2]["authorization"] == "Bearer the-operators-token"
    assert flip(script, tmp_path, "events", "parked", "cohort", "--trust-url", script.url).exit_code == 2


@pytest.mark.requirement("RUN-4")
@pytest.mark.parametrize(
    ("arguments", "method", "path"),
    [
        (["nets", "drain", "net1"], "PUT", "/api/scheduler/nets/net1/draining"),
        (["nets", "undrain", "net1"], "PUT", "/api/scheduler/nets/net1/draining"),
        (["nets", "retire", "net1"], "POST", "/api/scheduler/nets/net1/retire"),
        (["queue", "prioritise", "r", "9"], "PUT", "/api/scheduler/runs/r/priority"),
        (["queue", "weigh", "p", "2"], "PUT", "/api/scheduler/projects/p/weight"),
    ],
)
def test_a_decision_about_nets_and_the_queue_needs_a_reason(
    arguments: list[str], method: str, path: str, tmp_path: Path
):
    with hub_that_says(LOGGED_IN, Answer(body={})) as script:
        assert flip(script, tmp_path, *arguments).exit_code == 2
        result = flip(script, tmp_path, *arguments, "--because", "new disks")
    assert result.exit_code == 0, result.output
    assert script.requests[-1][:2] == (method, path)


@pytest.mark.requirement("RUN-5")
def test_the_queue_shows_what_each_run_waits_for(tmp_path: Path):
    lack = {"code": "trusts-not-connected", "trusts": ["KCH"]}
    start = {"at": None, "unknown_because": "no-net-fits"}
    run = {"queue_position": 1, "run_id": "r7", "waits_for": [lack], "start": start}
    with hub_that_says(LOGGED_IN, Answer(body=[run])) as script:
        result = flip(script, tmp_path, "queue", "list")
    assert result.exit_code == 0, result.output
    assert all(shown in result.output for shown in ("r7", "trusts-not-connected KCH", "unknown: no-net-fits"))


@pytest.mark.requirement("RUN-4")
def test_a_run_may_ask_for_some_of_the_trusts_and_for_gpus(tmp_path: Path):
    payload = tmp_path / "payload.json"
    payload.write_text("{}")
    asked = (
        "train",
        "m",
        str(payload),
        "--minimum-trusts",
        "2",
        "--aggregation-weights",
        '{"KCH": 0.5}',
        "--continues",
        "r",
        "--resources",
    )
    with hub_that_says(LOGGED_IN, Answer(status=202, body={})) as script:
        assert flip(script, tmp_path, *asked, "two").exit_code == 2
        assert flip(script, tmp_path, *asked, '{"gpus": 2}').exit_code == 0
    assert script.bodies[-1] == {
        "model_id": "m",
        "payload": {},
        "minimum_trusts": 2,
        "resources": {"gpus": 2},
        "aggregation_weights": {"KCH": 0.5},
        "continues": "r",
    }
