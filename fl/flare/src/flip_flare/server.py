"""Runs the FLARE server of a net in the foreground: `python -m flip_flare.server --kit DIR/server`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from flip_nnunet.keeper import keep

from flip_flare.command import flare_command

_MODULE = "nvflare.private.fed.app.server.server_train"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flip_flare.server", description="Run a net's FLARE server.")
    parser.add_argument("--kit", required=True, type=Path, help="the server's kit, made by flip_flare.provision")
    kit = parser.parse_args().kit.resolve()
    if not (kit / "startup" / "server.key").is_file():
        parser.error(f"--kit: {kit} is not a server's kit")
    sys.exit(keep(flare_command(_MODULE, kit, "fed_server.json", "org=hub"), kit, {}))


if __name__ == "__main__":
    main()
