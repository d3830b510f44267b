"""Core ML's own benchmark is for a Mac; elsewhere it says so."""

from __future__ import annotations

import sys

import pytest

from handmesh.errors import BackendUnavailable
from handmesh_benchmarks.devices import coreml
from handmesh_benchmarks.protocol import Protocol


@pytest.mark.skipif(sys.platform == "darwin", reason="here Core ML runs")
def test_not_on_a_mac_says_what_to_do() -> None:
    with pytest.raises(BackendUnavailable, match="run the command on a Mac"):
        coreml.measure([], Protocol(), lambda results: None, lambda line: None)


@pytest.mark.darwin
def test_on_a_mac_an_artifact_is_wanted() -> None:
    with pytest.raises(BackendUnavailable, match="handmesh export --format coreml"):
        coreml.measure([], Protocol(), lambda results: None, lambda line: None)
