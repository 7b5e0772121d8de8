"""Trusts that reach a net's server through a forwarder: a machine's firewall may let out other ports than the hub's."""

from __future__ import annotations

from collections.abc import Collection, Mapping


def parse_forwarder(text: str) -> tuple[str, int]:
    """`KCH=9002`: the Trust and the port at which it reaches the server. Raises ValueError."""
    trust, _, port = text.partition("=")
    if not trust or not port.isdecimal():
        raise ValueError(f"{text!r} must be TRUST=PORT")
    return trust, int(port)


def check_forwarders(forwarders: Mapping[str, int], trusts: Collection[str]) -> None:
    """Whether these are ports of Trusts of the net. Raises ValueError."""
    if strangers := sorted(forwarders.keys() - set(trusts)):
        raise ValueError(f"through: {', '.join(strangers)} is no Trust of the net")
    for trust, port in forwarders.items():
        if not 0 < port < 65536:
            raise ValueError(f"through: {port} of {trust} must lie between 1 and 65535")
