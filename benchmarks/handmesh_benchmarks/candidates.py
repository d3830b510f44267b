"""What `handmesh bench` measures: `predict()` with box and side given, and networks alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handmesh import Box, Bundle, Hand, InputError, Predictor, backends
from handmesh.imaging import crop
from handmesh.verification import read_reference

from .protocol import Candidate, Run
from .runner import sha256
from .variants import Variant, artifact_facts, precision_of

Image = NDArray[np.uint8]

# Boxes that are tried, each that of the hand seen in the one before, until one needs one crop only;
# and how far apart, as a share of the box, the joints of one hand may lie in two of them.
_BOXES, _SAME_HAND = 4, 0.15


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

    Its box is one in which the network takes one crop to read it, where there is such a box. The
    one that a search ends with need not be: it looks a few times only, and may stop before the
    box has come to rest.

    Args:
        image: (H, W, 3) uint8 RGB.
        bundle: the trained model.
        backend: what runs it.
        box: a `Box`, or (x0, y0, x1, y1) in pixels; without it the photo is searched.

    Raises:
        InputError: the network sees no hand in the photo.
    """
    with Predictor(bundle, backend) as predictor:
        hands = predictor.predict(image, box=box, looks=1)
        if not hands:
            raise InputError(
                "the network sees no hand in the photo, so there is nothing to measure: "
                "choose another one (--photo), or say where it is (--box)"
            )
        return _settled(predictor, image, hands[0])


def _settled(predictor: Predictor, image: Image, found: Hand) -> Hand:
    """The hand found, in a box that the network leaves as it is and does not doubt.

    Where none of a few boxes is such, or they leave the hand, it is as it was found, and the rows
    tell of more crops.
    """
    hand = found
    for _ in range(_BOXES):
        # As the rows ask: with the side given, and one look.
        (hand,) = predictor.predict(image, box=hand.box, handedness=hand.handedness, looks=1)
        apart = np.linalg.norm(hand.joints_px - found.joints_px, axis=1).mean()
        if apart > _SAME_HAND * found.box.size:
            break
        if hand.crops_seen == 1:
            return hand
    return found


def predict_candidate(
    image: Image | bytes, hand: Hand, variant: Variant, threads: int
) -> Candidate:
    """`Predictor.predict` with box and handedness given and one look: no search, no mean.

    Its stages are "decode" (of a file's bytes; nothing for an array), "crop", "network" and
    "geometry" in milliseconds. Its facts tell, once it ran, how many crops the network saw
    ("crops_seen"): a doubtful box takes two more looks, and following a hand another.
    """
    facts = facts_of("predict", variant, threads)

    def load() -> Run:
        predictor = Predictor(variant.bundle, variant.backend, threads, variant.device)
        facts["provider"] = predictor.backend.description

        def run() -> Mapping[str, float]:
            hands = predictor.predict(image, box=hand.box, handedness=hand.handedness, looks=1)
            facts["crops_seen"] = hands[0].crops_seen
            return hands[0].timings_ms

        return run

    return Candidate(f"predict {variant.name} {threads}", load, facts)


def network_candidate(
    image: Image, hand: Hand, variant: Variant, threads: int, batch: int = 1
) -> Candidate:
    """Crops of the hand through a network, pixels to arrays; nothing else."""
    size = variant.bundle.image_size
    images = np.repeat(crop(image, hand.box, size)[None], batch, axis=0)  # (N, S, S, 3)
    facts = facts_of("network", variant, threads, batch)

    def load() -> Run:
        network = backends.create(variant.backend, variant.bundle, threads, variant.device)
        facts["provider"] = network.description

        def run() -> None:
            network.run(images)

        return run

    many = "" if batch == 1 else f" batch {batch}"
    return Candidate(f"network {variant.name} {threads}{many}", load, facts)


def facts_of(task: str, variant: Variant, threads: int, batch: int = 1) -> dict[str, Any]:
    """What the results say beside a figure. "provider" is filled in when it is known what ran."""
    return {
        "task": task,
        "network": variant.bundle.name,
        "backend": variant.backend,
        "threads": threads,
        "batch": batch,
        "precision": variant.precision,
        "provider": "",
        "image_size": variant.bundle.image_size,
        "artifact": artifact_facts(variant.bundle, variant.backend),
    }


def parts_facts(bundle: Bundle, files: Mapping[str, Path], threads: int) -> dict[str, Any]:
    """The same of a network that was cut into ONNX files, which are an artifact of their own.

    They were proven when they were cut, and the proof is not kept: parity and accuracy are None.

    Args:
        bundle: whose network. files: by part, in their order.
    """
    facts = facts_of("parts", Variant(bundle, "torch", precision_of(bundle, "torch")), threads)
    return facts | {
        "backend": "onnx",
        "precision": "fp32",
        "artifact": facts["artifact"]
        | {
            "bytes": sum(path.stat().st_size for path in files.values()),
            "sha256": sha256(files.values()),
            "computes": "fp32",
            "graph": "recurrence",
            "accuracy": None,
            "parity": None,
        },
    }
