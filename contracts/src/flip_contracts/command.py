"""`flip-contracts`: write what follows from the contracts, check them against their history, release them."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from flip_contracts import catalogue, generate, history
from flip_contracts.base import REGISTRY, Message


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; exits with 1 and a line a problem where a promise is broken."""
    asked = _parser().parse_args(arguments)
    try:
        match asked.command:
            case "generate":
                generate.write(asked.folder)
            case "check":
                history.check(asked.folder, _messages(asked.modules))
            case _:
                changed = history.release(asked.folder, asked.name, _messages(asked.modules))
                sys.stdout.write("".join(f"{type_name}\n" for type_name in changed))
    except (history.Incompatible, ValueError) as problem:
        sys.exit(str(problem))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="flip-contracts", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    generating = commands.add_parser("generate", help="make FOLDER hold what follows from the contracts")
    checking = commands.add_parser("check", help="refuse messages that break a promise of the history in FOLDER")
    releasing = commands.add_parser("release", help="record today's messages in the history in FOLDER as NAME")
    for each in (generating, checking, releasing):
        each.add_argument("folder", type=Path)
    releasing.add_argument("name")
    for each in (checking, releasing):
        each.add_argument("modules", nargs="*", help="modules with a service's own messages, instead of the catalogue")
    return parser


def _messages(modules: Sequence[str]) -> list[type[Message]]:
    if not modules:
        return catalogue.messages()
    for each in modules:
        import_module(each)
    return sorted(
        (message for message in REGISTRY.values() if message.__module__ in modules), key=lambda each: each.type_name
    )
