"""One photo through every runtime: the same hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from handmesh.bundle import Bundle
from handmesh.predictor import Predictor
from handmesh.types import Hand
from handmesh_converters import formats
from handmesh_converters.export import add_formats

pytest.importorskip("litert_torch", reason="the TFLite converter is not installed")
pytest.importorskip("coremltools", reason="coremltools is not installed")

PHOTOS = ("hooked", "open", "open_turned", "pointing")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The shipped bundle, with its network in every format as exported by default."""
    folder = tmp_path_factory.mktemp("every") / "bundle"
    return add_formats(Bundle.load("light"), ["tflite", "coreml"], folder).bundle


def _predictors(bundle: Bundle) -> Iterator[tuple[str, Predictor]]:
    for name in ("torch", "onnx", "tflite"):
        yield name, Predictor(bundle, name, threads=1)
    # Core ML itself on macOS, elsewhere an executor of the saved program.
    yield "coreml", Predictor(bundle, formats.load("coreml").open(bundle))


@pytest.fixture(scope="module")
def found(bundle: Bundle, example_photos: dict[str, Path]) -> dict[str, dict[str, list[Hand]]]:
    """By runtime: hands searched for in the photos, and hands in the boxes torch ended with."""
    hands: dict[str, dict[str, list[Hand]]] = {"searched": {}, "boxed": {}}
    for name, predictor in _predictors(bundle):
        with predictor:
            hands["searched"][name] = [predictor.predict(example_photos[p])[0] for p in PHOTOS]
            hands["boxed"][name] = [
                predictor.predict(example_photos[photo], hand.box, handedness=hand.handedness)[0]
                for photo, hand in zip(PHOTOS, hands["searched"]["torch"], strict=True)
            ]
    return hands


def _worst_mm(found: dict[str, list[Hand]]) -> float:
    """Largest distance of a joint between any two runtimes, wrists aligned, millimetres."""
    places = np.stack([[h.joints_m - h.joints_m[0] for h in hands] for hands in found.values()])
    apart = np.linalg.norm(places[:, None] - places[None], axis=-1)  # (R, R, photos, 21)
    return float(apart.max()) * 1e3


@pytest.mark.slow
def test_joints_in_one_box_are_within_half_a_millimetre(
    found: dict[str, dict[str, list[Hand]]],
) -> None:
    assert _worst_mm(found["boxed"]) < 0.5


@pytest.mark.slow
def test_a_search_ends_at_the_same_hand(found: dict[str, dict[str, list[Hand]]]) -> None:
    """Each look decides where the next crop is: where the network is unsure, rounding decides."""
    for hands in found["searched"].values():
        for hand, reference in zip(hands, found["searched"]["torch"], strict=True):
            assert hand.handedness == reference.handedness
    assert _worst_mm(found["searched"]) < 5
