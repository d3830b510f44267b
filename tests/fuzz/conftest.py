"""Fuzz tests run where Hypothesis is installed, and say at the end how much they ran."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("hypothesis", reason="Hypothesis is not installed")
import fuzzing


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if fuzzing.CASES > fuzzing.FEW:
        terminalreporter.write_line(
            f"fuzz: {fuzzing.counts['cases']:,} cases, of which {fuzzing.counts['refused']:,} were "
            "refused by an error of handmesh"
        )
