"""Runs a Trust's Flower node in the foreground: `python -m flip_flower.client --kit DIR/KCH --site KCH`.

The environment says where prepared runs lie and how many cases the Trust takes part with: `flip_flower.site_settings`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from flip_nnunet.keeper import keep
from flip_nnunet.sandbox import SandboxUnavailable, check

from flip_flower.kit import KEY, SERVER_CERTIFICATE, Net, flower_environment
from flip_flower.site_settings import site_settings


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flip_flower.client", description="Run a Trust's Flower node.")
    parser.add_argument("--kit", required=True, type=Path, help="the Trust's kit, made by flip_flower.provision")
    parser.add_argument("--site", required=True, help="the Trust's code")
    given = parser.parse_args()
    kit = given.kit.resolve()
    if not (kit / KEY).is_file() or (kit / SERVER_CERTIFICATE).is_file():
        parser.error(f"--kit: {kit} is not a client's kit")
    try:
        Net.read(kit)
        check(site_settings().sandbox)
    except (ValueError, SandboxUnavailable) as refused:
        parser.error(str(refused))
    command = [sys.executable, "-u", "-m", "flip_flower.supernode", "--kit", str(kit), "--site", given.site]
    sys.exit(keep(command, kit, flower_environment(kit)))


if __name__ == "__main__":
    main()
