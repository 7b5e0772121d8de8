"""The ledger as a person reads it: one line an entry."""

from typing import Any

_SAID_IN_THE_LINE = ("project_id", "run_id", "model_id", "user_id")


def told(entry: dict[str, Any]) -> str:
    """Time, actor, what happened, and the facts that matter."""
    name = entry["type"].split(".")[2]
    facts = {**entry["body"]}
    subject = facts.pop("run_id", None) or facts.pop("model_id", None) or facts.pop("project_id", None) or entry["key"]
    shown = "  ".join(
        f"{field}={_short(value)}" for field, value in facts.items() if field not in _SAID_IN_THE_LINE and value != ""
    )
    return f"{entry['time'][:23]}  {_short(entry['actor']):24}  {name:22}  {_short(subject)}  {shown}".rstrip()


def _short(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(_short(each) for each in value)
    if isinstance(value, dict):
        return "{" + " ".join(f"{name}:{_short(each)}" for name, each in value.items()) + "}"
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value)
    return text if len(text) <= 24 else text[:4] + ".." + text[-6:]
