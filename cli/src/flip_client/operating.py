"""`flip events` and `flip projections`: what operators do, from a terminal."""

import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from flip_client.operations import HUB_SERVICES, Operations
from flip_client.terminal import logged_in, show_table, show_view
from flip_client.trust import TrustOperator

_LOOK_S = 0.5
_COLUMNS = ("id", "kind", "type", "key", "reason", "attempts", "behind", "at")

events = typer.Typer(no_args_is_help=True, help="Records that wait, and the event log.")
projections = typer.Typer(no_args_is_help=True, help="What services keep of what was said, made again.")

Service = Annotated[str, typer.Argument(help="Such as scheduler; a net is trainer-node/net1.")]
TrustUrl = Annotated[str | None, typer.Option("--trust-url", help="The service inside a Trust, instead of the hub's.")]
TokenFile = Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="The Trust operator's token.")]


@contextmanager
def _at(service: str, url: str | None, token_file: Path | None) -> Generator[Operations]:
    if (url is None) != (token_file is None):
        raise typer.BadParameter("--trust-url and --token-file go together")
    if url and token_file:
        operator = TrustOperator(url, token_file.read_text().strip())
        try:
            yield Operations(operator.ask, service)
        finally:
            operator.close()
        return
    with logged_in() as hub:
        yield Operations(hub.session.request, service)


@events.command()
def parked(
    service: Annotated[str | None, typer.Argument(help="All of the hub where none is named.")] = None,
    kind: Annotated[str | None, typer.Option("--type", help="Only records of this type.")] = None,
    trust_url: TrustUrl = None,
    token_file: TokenFile = None,
) -> None:
    """List the keys that wait, by their first record."""
    if service:
        with _at(service, trust_url, token_file) as operations:
            show_table(operations.parked(kind), *_COLUMNS)
        return
    with logged_in() as hub:
        names = [*HUB_SERVICES, *(f"trainer-node/{net['net']}" for net in hub.nets())]
        found = [
            {"service": name, **each} for name in names for each in Operations(hub.session.request, name).parked(kind)
        ]
    show_table(found, "service", *_COLUMNS)


@events.command()
def show(service: Service, parked_id: int, trust_url: TrustUrl = None, token_file: TokenFile = None) -> None:
    """A parked record: what it holds, why it waits, how often it was tried, how many wait behind it."""
    with _at(service, trust_url, token_file) as operations:
        show_view(operations.show(parked_id))


@events.command()
def retry(
    service: Service,
    parked_id: Annotated[int | None, typer.Argument()] = None,
    topic: str | None = None,
    key: str | None = None,
    kind: Annotated[str | None, typer.Option("--type")] = None,
    trust_url: TrustUrl = None,
    token_file: TokenFile = None,
) -> None:
    """Try again: one record, a key (--topic and --key), or every key whose first record is of a --type."""
    with _at(service, trust_url, token_file) as operations:
        match (parked_id, topic, key, kind):
            case (int(), None, None, None):
                show_view(operations.retry(parked_id))
            case (None, str(), str(), None):
                show_view(operations.retry_key(topic, key))
            case (None, None, None, str()):
                show_view(operations.retry_type(kind))
            case _:
                raise typer.BadParameter("name one record, or --topic and --key, or --type")


@events.command()
def discard(
    service: Service,
    parked_id: int,
    because: Annotated[str, typer.Option(help="Why; it is recorded.")],
    trust_url: TrustUrl = None,
    token_file: TokenFile = None,
) -> None:
    """Take the first record of a key out of the way, for good. What waits behind it goes on."""
    with _at(service, trust_url, token_file) as operations:
        show_view(operations.discard(parked_id, because))


@events.command()
def refill(service: Service, trust_url: TrustUrl = None, token_file: TokenFile = None) -> None:
    """Hand a service's whole event log to a broker that lost its disk. Who has heard an event ignores it."""
    with _at(service, trust_url, token_file) as operations:
        show_view(operations.refill())


@projections.command()
def rebuild(
    service: Service,
    swap: Annotated[bool, typer.Option(help="Put the rebuilt rows in place of those that stand.")] = False,
    trust_url: TrustUrl = None,
    token_file: TokenFile = None,
) -> None:
    """Make a service's projections again beside those that stand, and compare them. 1 where they differ."""
    with _at(service, trust_url, token_file) as operations:
        found = operations.rebuild(swap=swap)
        while found["state"] in {"asked", "running"}:
            time.sleep(_LOOK_S)
            found = operations.rebuild_of(found["rebuild_id"])
    show_view(found)
    if found["state"] == "failed" or any(each["differing"] for each in found["tables"]):
        raise typer.Exit(1)


@projections.command("list")
def list_rebuilds(service: Service, trust_url: TrustUrl = None, token_file: TokenFile = None) -> None:
    """The rebuilds of a service, newest first."""
    with _at(service, trust_url, token_file) as operations:
        columns = ("rebuild_id", "state", "swap", "events", "missing", "asked_at", "actor")
        show_table(operations.rebuilds(), *columns)
