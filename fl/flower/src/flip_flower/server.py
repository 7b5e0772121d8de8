"""Runs the SuperLink of a net in the foreground: `python -m flip_flower.server --kit DIR/server`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from flip_nnunet.keeper import keep

from flip_flower.kit import SERVER_CERTIFICATE, flower_environment


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flip_flower.server", description="Run a net's SuperLink.")
    parser.add_argument("--kit", required=True, type=Path, help="the server's kit, made by flip_flower.provision")
    kit = parser.parse_args().kit.resolve()
    if not (kit / SERVER_CERTIFICATE).is_file():
        parser.error(f"--kit: {kit} is not a server's kit")
    command = [sys.executable, "-u", "-m", "flip_flower.superlink", "--kit", str(kit)]
    sys.exit(keep(command, kit, flower_environment(kit)))


if __name__ == "__main__":
    main()
