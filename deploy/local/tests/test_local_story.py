"""What the demo reads from the ledger."""

from typing import Any

from flip_local.story import plan_digests


def agreed(run_id: str, **by_trust: str) -> dict[str, Any]:
    return {"type": "flip.trainer-node.PlanAgreed.v1", "body": {"run_id": run_id, "by_trust": by_trust}}


def test_the_plans_of_a_run_are_those_of_its_trusts_and_of_no_other_run():
    told = [{"type": "flip.scheduler.RunFinished.v1", "body": {"run_id": "a"}}]
    entries = [agreed("a", KCH="1", UCLH="2"), agreed("b", KCH="3"), *told]
    assert plan_digests(entries, "a") == {"1", "2"}
    assert plan_digests(entries, "b") == {"3"}
    assert plan_digests(entries, "c") == set()
