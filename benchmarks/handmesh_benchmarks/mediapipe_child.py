"""MediaPipe Hands in an environment of its own: what `handmesh_benchmarks.peers` talks to.

Run by MediaPipe's interpreter, not ours, so it imports nothing of handmesh. Reads one JSON object a
line and answers each with one: pictures are .npy files, (N, H, W, 3) uint8 RGB. The clock is around
``Hands.process`` alone.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import mediapipe
import numpy as np


def _versions() -> dict[str, str]:
    return {
        "mediapipe": mediapipe.__version__,
        "numpy": np.__version__,
        "python": sys.version.split()[0],
    }


def _hands(still: bool, count: int) -> Any:
    return mediapipe.solutions.hands.Hands(static_image_mode=still, max_num_hands=count)


def _run(hands: Any, pictures: Any) -> dict[str, Any]:
    """Milliseconds and hands found, picture by picture."""
    times, found = [], []
    for picture in pictures:
        picture = np.ascontiguousarray(picture)
        start = time.perf_counter()
        result = hands.process(picture)
        times.append((time.perf_counter() - start) * 1e3)
        found.append(len(result.multi_hand_landmarks or ()))
    return {"ms": times, "found": found}


def main() -> None:
    # MediaPipe's own log would get between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    solutions: dict[tuple[bool, int], Any] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "versions":
            answer: dict[str, Any] = _versions()
        else:
            kind = (bool(request["still"]), int(request["hands"]))
            if kind not in solutions:
                solutions[kind] = _hands(*kind)
            if not kind[0]:
                solutions[kind].reset()  # the next frame is the first of another video
            answer = _run(solutions[kind], np.load(request["pictures"], mmap_mode="r"))
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
