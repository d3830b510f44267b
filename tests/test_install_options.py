"""The README's table of extras against what setup.py gives."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import setuptools

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def extras(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    given: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", lambda **options: given.update(options))
    runpy.run_path(str(ROOT / "setup.py"))
    found: dict[str, list[str]] = given["extras_require"]
    return found


def _rows() -> dict[str, str]:
    """What the table says of each extra."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.partition("## Install options")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", section, re.MULTILINE))


def test_every_extra_is_told(extras: dict[str, list[str]]) -> None:
    assert set(_rows()) == set(extras)


def test_what_all_leaves_out_is_told(extras: dict[str, list[str]]) -> None:
    everything = set(extras["all"])
    # The base install brings what `onnx` names.
    left_out = {name for name in extras if name != "onnx" and not everything >= set(extras[name])}
    assert left_out == set(re.findall(r"`(\w+)`", _rows()["all"]))
