"""Our networks beside MediaPipe's ``hand_landmark``: milliseconds a crop, by turns in one run.

::

    python -m handmesh_benchmarks.landmark_peer --threads 1 --out landmark.json

Networks alone, on one crop: finding a hand, cutting it out and geometry are not on the clock (see
`peers` for all of it). The files of MediaPipe come out of its wheel, which the first run installs
into an environment of its own (`mediapipe_peer`); LiteRT runs them in this process, with XNNPACK as
in MediaPipe. Ours run in each runtime that is installed and that the bundle holds a file for. The
ratio is that of the medians of each round; below 1 ours is faster.
"""

from __future__ import annotations

if __name__ == "__main__":
    from .command import run

    run(__spec__)

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from handmesh.atomic import write_atomic
from handmesh.backends import create
from handmesh.bundle import Bundle
from handmesh.errors import BackendError, BackendUnavailable, InputError

from .command import add_bundle, add_out, parse, parser_of
from .device import describe
from .landmark_network import PEERS, LandmarkNetwork, landmark_files, require_litert
from .mediapipe_peer import add_environment, prepare

__all__ = ["measure", "ratios"]

BACKENDS = ("onnx", "tflite")
RUNS = 20  # of each in a round
WARM_UP = 20

Run = Callable[[], object]
Times = Mapping[str, NDArray[np.float64]]


def measure(networks: Mapping[str, Run], rounds: int) -> dict[str, NDArray[np.float64]]:
    """Milliseconds (rounds, RUNS) of each, in turns whose order rotates.

    Args:
        networks: what runs one crop, by name.
        rounds: turns of each, after one that only warms up.
    """
    names = list(networks)
    for run in networks.values():
        for _ in range(WARM_UP):
            run()
    times: dict[str, list[list[float]]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            row = []
            for _ in range(RUNS):
                start = time.perf_counter()
                networks[name]()
                row.append((time.perf_counter() - start) * 1e3)
            times[name].append(row)
    return {name: np.array(rows) for name, rows in times.items()}


def ratios(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> NDArray[np.float64]:
    """(rounds,) median of ours over median of theirs, from milliseconds (rounds, RUNS)."""
    return np.asarray(np.median(ours, axis=1) / np.median(theirs, axis=1))


def _peers(environment: Path, threads: int) -> dict[str, Run]:
    rng = np.random.default_rng(0)
    runs: dict[str, Run] = {}
    for name, path in landmark_files(environment).items():
        network = LandmarkNetwork(path, threads)
        runs[name] = partial(network.outputs, rng.random(network.shape, dtype=np.float32))
    return runs


def _ours(bundle: Bundle, threads: int) -> dict[str, tuple[Run, str]]:
    """What runs one crop, and the backend's description, by backend."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (1, bundle.image_size, bundle.image_size, 3), dtype=np.uint8)
    runs: dict[str, tuple[Run, str]] = {}
    for name in BACKENDS:
        try:
            backend = create(name, bundle, threads)
        except (BackendUnavailable, BackendError) as error:
            sys.stderr.write(f"left out: {error}\n")
            continue
        runs[name] = partial(backend.outputs, image), backend.description
    if not runs:
        raise BackendUnavailable(f"no runtime here runs an artifact of {bundle.folder}")
    return runs


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = parser_of(__name__, __doc__)
    add_bundle(parser)
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="default 1")
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="turns (default 20)")
    add_environment(parser)
    add_out(parser)
    options = parse(parser, arguments)
    if min(options.threads, options.rounds) < 1:
        raise InputError("--threads and --rounds must be at least 1")
    bundle = Bundle.load(options.bundle)
    bundle.check()
    ours = _ours(bundle, options.threads)  # before a download that takes minutes
    require_litert()
    prepare(options.environment)
    networks = {f"{bundle.name}, {description}": run for run, description in ours.values()}
    times = measure({**networks, **_peers(options.environment, options.threads)}, options.rounds)
    device = dict(describe())
    lines = [f"- {name.replace('_', ' ')}: {value}" for name, value in device.items()]
    lines += ["", "| network, one crop | p50 ms | p90 | " + " | ".join(PEERS) + " |"]
    lines.append("| --- | ---: | ---: |" + " --- |" * len(PEERS))
    rows = []
    for name, ms in times.items():
        cells = [f"{np.percentile(ms, q):.2f}" for q in (50, 90)]
        against: dict[str, list[float]] = {}
        for peer in PEERS:
            low, middle, high = np.percentile(ratios(ms, times[peer]), (25, 50, 75))
            against[peer] = [float(low), float(middle), float(high)]
            cells.append("" if name in PEERS else f"{middle:.2f} ({low:.2f} to {high:.2f})")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
        p50, p90 = np.percentile(ms, (50, 90))
        rows.append({"network": name, "p50_ms": p50, "p90_ms": p90, "ratio_p25_p50_p75": against})
    sys.stdout.write("\n".join(lines) + "\n")
    if options.out is not None:
        written = {"device": device, "threads": options.threads, "networks": rows}
        write_atomic(options.out, (json.dumps(written, indent=2) + "\n").encode())
    return 0
