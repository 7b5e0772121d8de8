"""Runs a Trust's FLARE client in the foreground: `python -m flip_flare.client --kit DIR/KCH --site KCH`.

The environment says where prepared runs lie and how many cases the Trust takes part with: `flip_flare.site_settings`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from flip_nnunet.keeper import keep
from flip_nnunet.sandbox import SandboxUnavailable, check

from flip_flare.command import flare_command
from flip_flare.site_settings import site_settings

_MODULE = "nvflare.private.fed.app.client.client_train"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flip_flare.client", description="Run a Trust's FLARE client.")
    parser.add_argument("--kit", required=True, type=Path, help="the Trust's kit, made by flip_flare.provision")
    parser.add_argument("--site", required=True, help="the Trust's code, as in its certificate")
    given = parser.parse_args()
    kit = given.kit.resolve()
    if not (kit / "startup" / "client.key").is_file():
        parser.error(f"--kit: {kit} is not a client's kit")
    try:
        check(site_settings().sandbox)
    except (ValueError, SandboxUnavailable) as refused:
        parser.error(str(refused))
    settings = (f"uid={given.site}", f"org={given.site.lower()}")
    sys.exit(keep(flare_command(_MODULE, kit, "fed_client.json", *settings), kit, {}))


if __name__ == "__main__":
    main()
