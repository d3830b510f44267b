"""How well meshes cover hands: closed forms on discs, and the command on a photo set."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from handmesh import Predictor
from handmesh.types import Box
from handmesh_training import outline_fit
from handmesh_training.outline_fit import Fit, main, to_line
from handmesh_training.outline_fit import outline_fit as fit_of
from handmesh_training.outlines import Outline
from handmesh_training.photos import LABELS, LabelledHand
from handmesh_training.samples import OUTLINE_POINTS

BOX = Box(70.0, 50.0, 80.0)


def ring(radius: float, count: int) -> NDArray[np.float64]:
    turn = np.arange(count) / count * 2 * np.pi
    return np.array([70.0, 50.0]) + radius * np.stack([np.cos(turn), np.sin(turn)], axis=1)


def disc(radius: float) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    rim = np.arange(64)
    faces = np.stack([np.full(64, 64), rim, (rim + 1) % 64], axis=1).astype(np.int32)
    return np.concatenate([ring(radius, 64), [[70.0, 50.0]]]), faces


@pytest.mark.parametrize("radius", [24.0, 30.0, 33.0])
def test_a_disc_is_as_far_away_as_its_radius(radius: float) -> None:
    outline = Outline(ring(30.0, OUTLINE_POINTS), np.ones(OUTLINE_POINTS, dtype=bool))
    fit = fit_of(*disc(radius), outline, BOX)
    off = (30.0 - radius) / BOX.size
    assert fit.bare == pytest.approx(max(off, 0.0), abs=2e-3)
    assert fit.spill == pytest.approx(max(-off, 0.0), abs=2e-3)
    assert fit.away == fit.bare + fit.spill


def test_unknown_points_do_not_count() -> None:
    points = ring(30.0, OUTLINE_POINTS)
    points[: OUTLINE_POINTS // 2] += 25
    known = np.arange(OUTLINE_POINTS) >= OUTLINE_POINTS // 2
    assert fit_of(*disc(30.0), Outline(points, known), BOX).away < 2e-3


def test_medians_are_told_in_percent() -> None:
    fits = [Fit(0.03, 0.02, 0.01), Fit(0.01, 0.0, 0.01), Fit(0.05, 0.05, 0.0)]
    line = "x: 3 of 7 hands; the silhouette is 3.00 % of the box away, bare 2.00, spill 1.00\n"
    assert to_line("x", 7, fits) == line
    assert to_line("x", 7, []) == "x: no outline is known of 7 hands\n"


@pytest.mark.slow
def test_the_command_tells_of_each_set(
    tmp_path: Path,
    example_photos: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of the shipped model's own joints of a photo, its mesh drawn as the outline: it fits."""
    photo = example_photos["open_turned"]
    (hand,) = Predictor("light").predict(photo)
    entry = {
        "uv": (hand.joints_px + 0.5).tolist(),
        "world_m": hand.joints_m.tolist(),
        "handedness_as_reported": "Left" if hand.handedness == "right" else "Right",
    }
    (tmp_path / photo.name).write_bytes(photo.read_bytes())
    (tmp_path / "none.png").write_bytes(photo.read_bytes())
    labels = {photo.name: {"hands": [entry]}, "none.png": {"hands": [entry]}}
    (tmp_path / LABELS).write_text(json.dumps(labels))

    drawn = np.zeros(cv2.imread(str(photo)).shape[:2], dtype=np.uint8)
    for corners in np.round(hand.vertices_px[hand.faces] * 16).astype(np.int32):
        cv2.fillConvexPoly(drawn, corners, 255, shift=4)
    chain = max(cv2.findContours(drawn, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0], key=len)
    places = np.linspace(0, len(chain), OUTLINE_POINTS, endpoint=False).astype(int)
    outline = Outline(chain[places, 0].astype(np.float64), np.ones(OUTLINE_POINTS, dtype=bool))

    def outlines(hands: list[LabelledHand]) -> list[Outline | None]:
        return [outline if hand.path.name == photo.name else None for hand in hands]

    monkeypatch.setattr(outline_fit, "open_outlines", outlines)
    assert main([str(tmp_path), str(tmp_path), "--limit", "2"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == second
    assert first.startswith(f"{tmp_path.name}: 1 of 2 hands; the silhouette is ")
    # A box around other tips, moved to the fingers' ends: nearly the same mesh.
    assert float(first.split(" is ")[1].split(" %")[0]) < 3
