"""What a site is asked and how it says that it failed."""

from __future__ import annotations

from pathlib import Path

from flip_nnunet.message import Message, SiteFailed, SiteFailure, failure_of
from flip_nnunet.operations import Operations


def fill(_: Message) -> Message:
    with Path("/dev/full").open("w") as full:  # a device that is always full
        full.write("a lot")
    return Message()


def stumble(_: Message) -> Message:
    raise KeyError("the name of a case")


def refuse(_: Message) -> Message:
    raise SiteFailed("too-few-cases", "the site takes part with 10 cases or more")


def told(operation: str, folder: Path) -> SiteFailure:
    site = Operations({"fill": fill, "stumble": stumble, "refuse": refuse}, folder / "not-yet" / "work")
    failure = failure_of(site.handle(operation, Message()))
    assert failure is not None
    return failure


def test_a_full_disk_is_told_as_one(tmp_path: Path):
    assert told("fill", tmp_path) == SiteFailure("disk-full", "the site's disk is full")


def test_of_an_unforeseen_error_the_hub_hears_the_type_alone(tmp_path: Path):
    assert told("stumble", tmp_path) == SiteFailure("unexpected-error", "KeyError; the site's log has more")


def test_a_refusal_is_told_as_it_is_and_an_unknown_operation_is_refused(tmp_path: Path):
    assert told("refuse", tmp_path).code == "too-few-cases"
    assert told("dance", tmp_path) == SiteFailure("operation-unknown", "'dance' is no operation of a site")
