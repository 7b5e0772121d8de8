"""What installing and starting say of a machine on which the stack cannot run, and that nothing is done twice."""

from pathlib import Path

import pytest
from flip_local import control, install
from flip_local.control import StackProblem
from flip_local.layout import Layout


def test_missing_toolchains_are_named_a_line_each_with_how_to_mend_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StackProblem) as refused:
        install.require_toolchains()
    lines = str(refused.value).splitlines()
    assert [line.split()[0] for line in lines] == ["Python", "Go", "Java", "Maven", "Node"]
    assert all(" is missing: " in line for line in lines)


def test_a_toolchain_that_is_too_old_is_named_with_both_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "node").write_text("#!/bin/sh\necho v18.19.1\n")
    (tmp_path / "node").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(StackProblem, match=r"Node is 18\.19, 20 or newer is needed"):
        install.require_toolchains()


@pytest.mark.parts
def test_a_second_install_does_nothing():
    install.install(Layout(), lambda step: None)
    steps: list[str] = []
    install.install(Layout(), steps.append)
    assert steps == []


def test_a_full_disk_is_refused_with_how_to_mend_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(control, "LEAST_FREE_GIB", 10**9)
    layout = Layout(state=tmp_path / "stack")
    with pytest.raises(StackProblem, match=r"GiB are free under .*FLIP_STATE"):
        control.up(layout, ["smtp"])
    assert not control.is_running(layout)
