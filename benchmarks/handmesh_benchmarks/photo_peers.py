"""Whole photos as a task of `network_peers`: the hands to be found in each, by us and by MediaPipe.

A run is one look at every photo, of 640 x 480 pixels as in `peers`; the figure is milliseconds a
photo. What is found differs, so nothing is compared but the time: how many photos had a hand for
each stands in the row. MediaPipe takes no number of threads: it uses the cores that there are, each
of its networks one.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from handmesh import Bundle, Predictor
from handmesh.imaging import decode

from .environments import INSIDE, Environment
from .mediapipe_peer import ENVIRONMENT, MediaPipe
from .peers import find_in_each, fitted
from .protocol import Candidate, Run

__all__ = ["WAYS", "candidate"]

WAYS: Mapping[str, Environment | None] = {
    "photos handmesh": None,
    "photos mediapipe": ENVIRONMENT,
}
HANDS = 2


def candidate(
    interpreter: Path, bundle: Bundle, photos: Sequence[Path], facts: Mapping[str, Any],
    folder: Path, stack: contextlib.ExitStack,
) -> Candidate:  # fmt: skip
    """One of `WAYS`, by the row's "backend".

    Args:
        interpreter: of MediaPipe's environment; not used for ours.
        bundle: ours. photos: files. folder: where pictures are handed over.
        facts: of the row; "threads" is obeyed by ours. stack: ends what was started.
    """
    known = dict(facts)

    def load() -> Run:
        pictures = [fitted(decode(path)) for path in photos]
        start = time.perf_counter()
        if known["backend"] == "mediapipe":
            peer = stack.enter_context(MediaPipe(interpreter, folder))
            handle = peer.hand_over("photos", pictures)
            known["provider"] = f"mediapipe {peer.versions['mediapipe']}, CPU, threads of its own"

            def look() -> tuple[list[float], list[int]]:
                return peer.run(handle, still=True, hands=HANDS)
        else:
            predictor = stack.enter_context(Predictor(bundle, "onnx", known["threads"]))
            known["provider"] = "handmesh, ONNX Runtime, CPU"

            def look() -> tuple[list[float], list[int]]:
                return find_in_each(predictor, pictures, HANDS)

        _, found = look()
        known["load_and_first_s"] = time.perf_counter() - start
        known["found"] = f"{sum(n > 0 for n in found)} of {len(found)}"

        def run() -> Mapping[str, float]:
            times, _ = look()
            return {INSIDE: float(np.mean(times))}

        return run

    return Candidate(f"peer {known['network']} photos {known['backend']}", load, known)
