"""What `handmesh bench` measures: `predict()` with a box given, and networks alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handmesh import Bundle, Hand, InputError, Predictor, backends
from handmesh.imaging import crop

from .protocol import Candidate, Run

Image = NDArray[np.uint8]


def locate(image: Image, bundle: Bundle, backend: str, box: Sequence[float] | None = None) -> Hand:
    """The hand that the measurements look at.

    Args:
        image: (H, W, 3) uint8 RGB.
        bundle: the trained model.
        backend: what runs it.
        box: (x0, y0, x1, y1) in pixels; without it the photo is searched.

    Raises:
        InputError: the network sees no hand in the photo.
    """
    with Predictor(bundle, backend) as predictor:
        hands = predictor.predict(image, box=box)
    if not hands:
        raise InputError(
            "the network sees no hand in the photo, so there is nothing to measure: "
            "choose another one (--photo), or say where it is (--box)"
        )
    return hands[0]


def predict_candidate(
    image: Image, hand: Hand, bundle: Bundle, backend: str, threads: int
) -> Candidate:
    """`Predictor.predict` on an array, with box and handedness given: no decoding, no search.

    Its stages are "crop", "network" and "geometry" in milliseconds. "crops" is no time but the
    number of crops that the network saw: following a hand may take a second look.
    """

    def load() -> Run:
        predictor = Predictor(bundle, backend, threads)

        def run() -> Mapping[str, float]:
            hands = predictor.predict(image, box=hand.box, handedness=hand.handedness)
            return hands[0].timings_ms

        return run

    return Candidate(
        name=f"predict {bundle.name} {backend} {threads}",
        load=load,
        facts=_facts("predict", bundle, backend, threads),
    )


def network_candidate(
    image: Image, hand: Hand, bundle: Bundle, backend: str, threads: int
) -> Candidate:
    """One crop of the hand through a bundle's network, pixels to arrays; nothing else."""
    images = crop(image, hand.box, bundle.image_size)[None]  # (1, S, S, 3)

    def load() -> Run:
        network = backends.create(backend, bundle, threads)

        def run() -> None:
            network.run(images)

        return run

    return Candidate(
        name=f"network {bundle.name} {backend} {threads}",
        load=load,
        facts=_facts("network", bundle, backend, threads),
    )


def _facts(task: str, bundle: Bundle, backend: str, threads: int) -> dict[str, Any]:
    artifact = bundle.artifacts[backend]
    return {
        "task": task,
        "network": bundle.name,
        "backend": backend,
        "threads": threads,
        "precision": artifact.get("precision", "unknown"),
        "image_size": bundle.image_size,
        "artifact_bytes": bundle.artifact(backend).stat().st_size,
        "parity": artifact.get("parity", "not stated"),
    }
