"""What `handmesh bench` measures: `predict()` with a box given, and networks alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from handmesh import Bundle, Hand, InputError, Predictor, backends
from handmesh.imaging import crop

from .protocol import Candidate, Run

Image = NDArray[np.uint8]


def locate(image: Image, bundle: Bundle, backend: str) -> Hand:
    """The hand that the measurements look at, found by a search of the photo.

    Raises:
        InputError: the network sees no hand in the photo.
    """
    with Predictor(bundle, backend) as predictor:
        hands = predictor.predict(image)
    if not hands:
        raise InputError(
            "the network sees no hand in the photo, so there is nothing to measure: "
            "choose another one (--photo)"
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
        prepare=_thread_setter(backend, threads),
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
        prepare=_thread_setter(backend, threads),
        facts=_facts("network", bundle, backend, threads),
    )


def _facts(task: str, bundle: Bundle, backend: str, threads: int) -> dict[str, str | int]:
    artifact = bundle.artifacts[backend]
    return {
        "task": task,
        "network": bundle.name,
        "backend": backend,
        "threads": threads,
        "precision": str(artifact.get("precision", "unknown")),
        "image_size": bundle.image_size,
        "artifact_bytes": bundle.artifact(backend).stat().st_size,
        "parity": str(artifact.get("parity", "not stated")),
    }


def _thread_setter(backend: str, threads: int) -> Callable[[], None]:
    """torch has one number of threads for the whole process; other runtimes one per session."""

    def set_torch_threads() -> None:
        import torch

        torch.set_num_threads(threads)

    return set_torch_threads if backend == "torch" else lambda: None
