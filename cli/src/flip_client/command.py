"""The `flip` command: what a person does at a hub, from a terminal."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from flip_client import auditing, files, nets, operating, rounds
from flip_client.hub import Hub, View
from flip_client.problem import Problem, Unreachable
from flip_client.terminal import keep, logged_in, out, show_table, show_view
from flip_client.trust import TrustOperator

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="FLIP: train on data that never leave the hospitals."
)
app.add_typer(auditing.audit, name="audit")
app.add_typer(operating.events, name="events")
app.add_typer(operating.projections, name="projections")
app.add_typer(files.files, name="files")
app.add_typer(rounds.rounds, name="rounds")
app.add_typer(nets.nets, name="nets")
app.add_typer(nets.queue, name="queue")


@app.command()
def login(
    url: Annotated[str, typer.Option(help="The hub's address.")],
    email: Annotated[str, typer.Option(prompt=True)],
    ca: Annotated[Path | None, typer.Option(help="The CA that signed the hub's certificate, in PEM.")] = None,
) -> None:
    """Log in; the session is kept for the next commands. The password is asked for, or read from FLIP_PASSWORD."""
    password = os.environ.get("FLIP_PASSWORD") or typer.prompt("Password", hide_input=True)
    hub = Hub(url, ca)
    try:
        hub.login(email, password)
    except Problem as problem:
        if problem.code != "password-change-required":
            raise
        new = typer.prompt("Choose a password of your own", hide_input=True, confirmation_prompt=True)
        hub.first_login(email, password, new)
    keep(url, ca, hub)
    out.print(f"Logged in as {email}.")


@app.command()
def invite(email: str, role: str) -> None:
    """Invite somebody as viewer, researcher or admin."""
    with logged_in() as hub:
        show_view(hub.invite(email, role))


@app.command()
def projects(keyword: str | None = None, status: str | None = None) -> None:
    """List the projects that you may see."""
    with logged_in() as hub:
        show_view(hub.projects(keyword=keyword, status=status))


@app.command()
def create(name: str, description: str, member: Annotated[list[str] | None, typer.Option()] = None) -> None:
    """Make a project."""
    with logged_in() as hub:
        show_view(hub.create_project(name, description, member))


@app.command()
def show(project_id: str) -> None:
    """A project, its images and its runs."""
    with logged_in() as hub:
        show_view({**hub.project(project_id), "images": hub.images(project_id), "runs": hub.runs(project_id)})


@app.command()
def query(project_id: str, file: Path, trust: Annotated[list[str], typer.Option()]) -> None:
    """Save the SQL in FILE as the project's query and send it to these Trusts."""
    with logged_in() as hub:
        show_view(hub.run_query(project_id, file.read_text(), trust))


@app.command()
def answers(project_id: str, version: int) -> None:
    """What the Trusts answered to a version of the query."""
    with logged_in() as hub:
        show_view(hub.query(project_id, version))


@app.command()
def stage(project_id: str, trust: Annotated[list[str], typer.Option()]) -> None:
    """Ask these Trusts for approval."""
    with logged_in() as hub:
        show_view(hub.stage(project_id, trust))


@app.command()
def decide(project_id: str, trust: str, decision: str, reason: str) -> None:
    """Record a Trust's decision: approved, declined or withdrawn."""
    with logged_in() as hub:
        show_view(hub.decide(project_id, trust, decision, reason))


@app.command()
def confirm(project_id: str) -> None:
    """Confirm that the Trusts' labels are in place."""
    with logged_in() as hub:
        show_view(hub.confirm_enrichment(project_id))


@app.command()
def model(project_id: str, name: str, description: str, framework: str = "nvflare", job: str = "nnunet") -> None:
    """Define a model in an approved project; the job `custom` trains an app of your own (`flip files put`)."""
    with logged_in() as hub:
        show_view(hub.create_model(project_id, name, description, framework, job))


@app.command()
def train(
    model_id: str,
    payload: Annotated[Path | None, typer.Argument(help="A JSON file; none for an app of your own.")] = None,
    local_rounds: Annotated[
        int | None, typer.Option(help="Of an app of your own: before LOCAL_ROUNDS of its configuration.")
    ] = None,
    minimum_trusts: Annotated[int | None, typer.Option(help="Start with as many; all where it isn't said.")] = None,
    resources: Annotated[
        View | None,
        typer.Option(parser=json.loads, metavar="JSON", help='What each Trust must have: {"gpus": 1}.'),
    ] = None,
    aggregation_weights: Annotated[
        View | None,
        typer.Option(parser=json.loads, metavar="JSON", help='What each Trust\'s cases count for: {"KCH": 0.5}.'),
    ] = None,
    continues: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Go on from this earlier run, with the payload's starting_fed_round."),
    ] = None,
) -> None:
    """Initiate training: of nnU-Net with the payload in a JSON file, of an app of your own without one."""
    if payload is not None and local_rounds is not None:
        raise typer.BadParameter("is for an app of your own, which has no payload", param_hint="--local-rounds")
    with logged_in() as hub:
        own = {"mode": "app"} | ({} if local_rounds is None else {"local_rounds": local_rounds})
        asked = own if payload is None else json.loads(payload.read_text())
        queued = hub.initiate_training(
            model_id,
            asked,
            minimum_trusts=minimum_trusts,
            resources=resources,
            aggregation_weights=aggregation_weights,
            continues=continues,
        )
        show_view(queued)


@app.command()
def follow(run_id: str) -> None:
    """What happens in a run, as it happens."""
    with logged_in() as hub:
        for event in hub.follow_run(run_id):
            out.print(json.dumps(event), highlight=False)


@app.command()
def stop(run_id: str) -> None:
    """Stop a run."""
    with logged_in() as hub:
        show_view(hub.stop_run(run_id))


@app.command()
def metrics(
    run_id: str,
    csv: Annotated[bool, typer.Option("--csv", help="As CSV, for a file or another program.")] = False,
) -> None:
    """A run's metrics per Trust and round, each at its place `x` on its axis."""
    with logged_in() as hub:
        if not csv:
            show_table(hub.metrics(run_id), "trust", "round", "name", "axis", "x", "value")
            return
        for piece in hub.metrics_as_csv(run_id):
            typer.echo(piece, nl=False)


@app.command()
def download(run_id: str, to: Path = Path()) -> None:
    """Download a run's results."""
    with logged_in() as hub:
        out.print(str(hub.download_results(run_id, to)))


@app.command()
def labels(
    project_id: str,
    folder: Path,
    url: Annotated[str, typer.Option(help="The imaging service inside the Trust.")],
    token_file: Annotated[Path, typer.Option(help="The operator's token.")],
    dry_run: Annotated[bool, typer.Option(help="Only report what would be covered.")] = False,
) -> None:
    """As a Trust's operator: bring the labels that FOLDER/manifest.csv lists."""
    show_view(TrustOperator(url, token_file.read_text().strip()).bring_labels(project_id, folder, dry_run=dry_run))


@app.command()
def dataset(
    project_id: str,
    url: Annotated[str, typer.Option(help="The imaging service inside the Trust.")],
    token_file: Annotated[Path, typer.Option(help="The operator's token.")],
    name: Annotated[str | None, typer.Option(help="DatasetXYZ_name, a folder that the Trust offers.")] = None,
    withdraw: Annotated[bool, typer.Option(help="Give it up: the studies of the PACS count again.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Only report what it holds.")] = False,
) -> None:
    """As a Trust's operator: let a ready nnU-Net data set stand in for a project's studies."""
    if withdraw == (name is not None):
        raise typer.BadParameter("give either --name or --withdraw")
    operator = TrustOperator(url, token_file.read_text().strip())
    if name is None:
        operator.withdraw_dataset(project_id)
    else:
        show_view(operator.register_dataset(project_id, name, dry_run=dry_run))


def main(command: Callable[[], None] = app) -> None:
    """Run the command; a refusal is one line and the fields it names."""
    try:
        command()
    except Problem as problem:
        print(f"refused: {problem}", file=sys.stderr)
        for name, value in problem.facts.items():
            print(f"  {name}: {json.dumps(value)}", file=sys.stderr)
        raise SystemExit(1) from problem
    except Unreachable as unreachable:
        print(unreachable, file=sys.stderr)
        raise SystemExit(2) from unreachable
