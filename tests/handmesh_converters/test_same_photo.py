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


@pytest.mark.slow
def test_joints_of_all_runtimes_are_within_half_a_millimetre(
    bundle: Bundle, example_photos: dict[str, Path]
) -> None:
    found: dict[str, list[Hand]] = {}
    for name, predictor in _predictors(bundle):
        with predictor:
            found[name] = [predictor.predict(example_photos[photo])[0] for photo in PHOTOS]
    worst: dict[tuple[str, str, str], float] = {}
    for hands in found.values():
        for hand, reference in zip(hands, found["torch"], strict=True):
            assert hand.handedness == reference.handedness
    # In pairs, so that two runtimes on either side of the reference count.
    for name, hands in found.items():
        for other, others in found.items():
            for photo, one, two in zip(PHOTOS, hands, others, strict=True):
                apart = np.linalg.norm(
                    (one.joints_m - one.joints_m[0]) - (two.joints_m - two.joints_m[0]), axis=1
                )
                worst[name, other, photo] = float(apart.max()) * 1e3
    assert max(worst.values()) < 0.5, worst
