"""A seal holds for the files it was made for, and for no others."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from flip_nnunet.seal import Results, SealBroken, check, seal

pytestmark = pytest.mark.requirement("FILE-6")

Members = dict[str, bytes]


@pytest.fixture
def results(tmp_path: Path) -> Results:
    folder = tmp_path / "Dataset001_x"
    (folder / "model" / "fold_all").mkdir(parents=True)
    (folder / "model" / "plans.json").write_text("{}")
    (folder / "model" / "fold_all" / "checkpoint_final.pth").write_bytes(b"weights")
    return seal(folder, folder / "model", {"seed": 7, "digests": {"plan": "a"}})


def change(archive: Path, how: Callable[[Members], object]) -> None:
    with zipfile.ZipFile(archive) as zipped:
        members = {name: zipped.read(name) for name in zipped.namelist()}
    how(members)
    with zipfile.ZipFile(archive, "w") as zipped:
        for name, content in members.items():
            zipped.writestr(name, content)


WEIGHTS = "Dataset001_x/model/fold_all/checkpoint_final.pth"
SEAL = "Dataset001_x/model/seal.json"


def test_what_was_sealed_is_told_with_the_seal_s_own_digest(results: Results):
    sealed, digest = check(results.archive)
    assert (sealed["seed"], sealed["digests"]["plan"]) == (7, "a")
    assert sealed["digests"]["files"].keys() == {WEIGHTS, "Dataset001_x/model/plans.json"}
    assert digest == results.seal_sha256


@pytest.mark.parametrize(
    ("how", "told"),
    [
        (lambda members: members.update({WEIGHTS: b"weighty"}), f"{WEIGHTS} was changed"),
        (lambda members: members.pop(WEIGHTS), f"{WEIGHTS} is missing"),
        (lambda members: members.update({"Dataset001_x/more": b""}), "Dataset001_x/more was not sealed"),
        (lambda members: members.pop(SEAL), "0 files are called seal.json"),
        (lambda members: members.update({SEAL: b"[]"}), "can't be read"),
    ],
    ids=["changed", "missing", "added", "unsealed", "malformed"],
)
def test_a_file_that_is_not_as_it_was_sealed_is_named(results: Results, how: Callable[[Members], object], told: str):
    change(results.archive, how)
    with pytest.raises(SealBroken, match=told):
        check(results.archive)


def test_a_seal_made_anew_for_a_changed_file_holds_but_is_not_the_one_in_the_ledger(results: Results):
    def seal_anew(members: Members) -> None:
        members[WEIGHTS] = b"weighty"
        sealed = json.loads(members[SEAL])
        sealed["digests"]["files"][WEIGHTS] = hashlib.sha256(b"weighty").hexdigest()
        members[SEAL] = json.dumps(sealed).encode()

    change(results.archive, seal_anew)
    _, digest = check(results.archive)
    assert digest != results.seal_sha256


@pytest.mark.parametrize("broken", [False, True])
def test_the_command_says_whether_results_are_whole(results: Results, broken: bool):
    if broken:
        change(results.archive, lambda members: members.update({WEIGHTS: b"weighty"}))
    command = [sys.executable, "-m", "flip_nnunet.seal", str(results.archive)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (said.returncode, said.stdout) == ((1, "") if broken else (0, said.stdout))
    assert (f"{WEIGHTS} was changed" in said.stderr) is broken
    assert (results.seal_sha256 in said.stdout) is not broken
