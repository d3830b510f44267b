"""The comparison with MediaPipe's network for one hand, on stand-ins whose time is known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from handmesh.errors import BackendUnavailable, InputError
from handmesh_benchmarks import landmark_peer
from handmesh_benchmarks.landmark_network import PEERS, landmark_files
from handmesh_benchmarks.landmark_peer import RUNS, main, measure, ratios


class Clock:
    """Time that passes only when something runs."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def perf_counter(self) -> float:
        return self.now

    def network(self, name: str, seconds: float) -> landmark_peer.Run:
        def run() -> None:
            self.calls.append(name)
            self.now += seconds

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(landmark_peer, "time", made)
    return made


def test_turns_rotate_and_what_warms_up_is_not_counted(clock: Clock) -> None:
    networks = {"a": clock.network("a", 0.002), "b": clock.network("b", 0.005)}

    times = measure(networks, rounds=3)

    assert {name: ms.shape for name, ms in times.items()} == {"a": (3, RUNS), "b": (3, RUNS)}
    np.testing.assert_allclose(times["a"], 2.0)
    np.testing.assert_allclose(times["b"], 5.0)
    counted = clock.calls[2 * landmark_peer.WARM_UP :]
    assert [counted[i * RUNS] for i in range(6)] == ["a", "b", "b", "a", "a", "b"]
    np.testing.assert_allclose(ratios(times["a"], times["b"]), [0.4] * 3)


def test_a_slow_round_falls_on_both_and_leaves_the_ratio() -> None:
    ours, theirs = np.full((3, 4), 2.0), np.full((3, 4), 4.0)
    ours[1] *= 10
    theirs[1] *= 10
    ours[2, 0] = 1000.0  # one run in a round does not move its median

    np.testing.assert_allclose(ratios(ours, theirs), [0.5, 0.5, 0.5])


def test_networks_are_found_in_the_wheel_or_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailable, match=r"hand_landmark_full\.tflite.*remove the folder"):
        landmark_files(tmp_path)
    folder = tmp_path / "lib" / "mediapipe" / "modules" / "hand_landmark"
    folder.mkdir(parents=True)
    for name in PEERS:
        (folder / f"{name}.tflite").touch()

    assert {name: path.name for name, path in landmark_files(tmp_path).items()} == {
        name: f"{name}.tflite" for name in PEERS
    }


def test_the_command_prints_and_writes_ratios(
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: list[tuple[Path, int]] = []

    def peers(environment: Path, threads: int) -> dict[str, landmark_peer.Run]:
        asked.append((environment, threads))
        return {name: clock.network(name, 0.004) for name in PEERS}

    monkeypatch.setattr(landmark_peer, "prepare", lambda environment: environment)
    monkeypatch.setattr(landmark_peer, "_peers", peers)
    monkeypatch.setattr(
        landmark_peer, "_ours", lambda bundle, threads: {"onnx": (clock.network("o", 0.001), "ORT")}
    )
    out = tmp_path / "landmark.json"

    given: Sequence[str] = ["--threads", "2", "--rounds", "2", "--environment", str(tmp_path)]
    assert main([*given, "--out", str(out)]) == 0

    assert asked == [(tmp_path, 2)]
    shown = capsys.readouterr().out
    assert "| light, ORT | 1.00 | 1.00 | 0.25 (0.25 to 0.25) |" in shown
    written = json.loads(out.read_text())
    assert written["threads"] == 2
    rows = {row["network"]: row for row in written["networks"]}
    assert rows["light, ORT"]["ratio_p25_p50_p75"][PEERS[0]] == pytest.approx([0.25] * 3)
    assert rows[PEERS[0]]["p50_ms"] == pytest.approx(4.0)


def test_counts_below_one_are_refused() -> None:
    with pytest.raises(InputError, match="at least 1"):
        main(["--rounds", "0"])
