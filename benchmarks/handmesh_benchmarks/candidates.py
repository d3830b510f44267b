"""What `handmesh bench` measures: `predict()` with a box given, and networks alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handmesh import Box, Bundle, Hand, InputError, Predictor, backends
from handmesh.imaging import crop
from handmesh.verification import read_reference

from .protocol import Candidate, Run

Image = NDArray[np.uint8]


def reference_photo(bundle: Bundle) -> tuple[Image, Box]:
    """The surest of a bundle's reference crops, (S, S, 3) uint8, and the box of all of it.

    Raises:
        BundleError, IntegrityError: the bundle has no such crops, or they are damaged.
    """
    images, output = read_reference(bundle)
    image = images[int(np.argmax(output.presence))]
    side = len(image)
    return image, Box((side - 1) / 2, (side - 1) / 2, side)


def locate(
    image: Image, bundle: Bundle, backend: str, box: Box | Sequence[float] | None = None
) -> Hand:
    """The hand that the measurements look at.

    Args:
        image: (H, W, 3) uint8 RGB.
        bundle: the trained model.
        backend: what runs it.
        box: a `Box`, or (x0, y0, x1, y1) in pixels; without it the photo is searched.

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

    Its stages are "crop", "network" and "geometry" in milliseconds. Its facts tell, once it ran,
    how many crops the network saw ("crops_seen"): following a hand may take a second look.
    """
    facts = _facts("predict", bundle, backend, threads)

    def load() -> Run:
        predictor = Predictor(bundle, backend, threads)

        def run() -> Mapping[str, float]:
            hands = predictor.predict(image, box=hand.box, handedness=hand.handedness)
            facts["crops_seen"] = hands[0].crops_seen
            return hands[0].timings_ms

        return run

    return Candidate(
        name=f"predict {bundle.name} {backend} {threads}",
        load=load,
        facts=facts,
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
        "artifact_bytes": bundle.size_of(backend),
        "parity": artifact.get("parity", "not stated"),
    }
