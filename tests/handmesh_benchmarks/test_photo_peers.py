"""Whole photos, ours and MediaPipe's: the same pictures, and who found how many."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from handmesh import Bundle
from handmesh_benchmarks import local, network_peers, photo_peers
from handmesh_benchmarks.environments import INSIDE
from handmesh_benchmarks.network_peers import table
from handmesh_benchmarks.protocol import Protocol
from handmesh_benchmarks.results import Results, load

PHOTOS = [Path("examples/photos") / name for name in ("open.jpg", "open_turned.jpg")]
SHORT = Protocol(min_runs=3, min_seconds=0, warmup_runs=0, rounds=3, pause_s=0)


class StandIn:
    """Takes 1000 and 3000 ms for two pictures, and finds a hand in the second alone."""

    seen: list[np.ndarray]
    closed = 0

    def __init__(self, interpreter: Path, folder: Path) -> None:
        assert interpreter == Path("theirs")
        self.versions = {"mediapipe": "0.0"}

    def __enter__(self) -> StandIn:
        return self

    def __exit__(self, *error: object) -> None:
        type(self).closed += 1

    def hand_over(self, name: str, pictures: Any) -> str:
        type(self).seen = list(pictures)
        return "handle"

    def run(self, pictures: str, still: bool, hands: int) -> tuple[list[float], list[int]]:
        assert (pictures, still, hands) == ("handle", True, photo_peers.HANDS)
        return [1000.0, 3000.0], [0, 2]


def test_both_look_at_every_photo_in_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photo_peers, "MediaPipe", StandIn)
    bundle = Bundle.load()
    with contextlib.ExitStack() as stack:
        rows = [
            photo_peers.candidate(
                Path("theirs"), bundle, PHOTOS,
                network_peers._facts(bundle, "photos", backend, 1), tmp_path, stack,
            )
            for backend in ("handmesh", "mediapipe")
        ]  # fmt: skip
        results = local.run(rows, SHORT, Results({}), lambda r: None, lambda line: None)

    ours, theirs = results.measurements
    assert [picture.shape for picture in StandIn.seen] == [(480, 640, 3)] * 2
    assert theirs.stages[INSIDE].p50 == 2000
    assert ours.facts["found"] == "2 of 2"
    assert theirs.facts["found"] == "1 of 2"
    assert 0 < ours.stages[INSIDE].p50 <= ours.total.p50
    assert StandIn.closed == 1
    results.write(tmp_path / "peers.json")
    header, cells = table([load(tmp_path / "peers.json")])
    shown = [dict(zip(header, row, strict=True)) for row in cells]
    assert [row["off by"] for row in shown] == ["-", "-"]
    assert shown[0]["times ours (quartiles)"] == "-"
    assert float(shown[1]["times ours (quartiles)"].split()[0]) > 1
    assert shown[1]["what ran"] == "mediapipe 0.0, CPU, threads of its own"
