"""How cost grows: with batch, input size, threads, number of hands, and number of vertices.

One interleaved run on this machine. The rows' task is "scaling NAME", their fact "x" the number
that was varied. The graph layers stand on spheres of 320 to 20,480 triangles; a node is a triangle,
joined to its three neighbours, so that every row of the Laplacian has as many entries whatever the
size: dense products grow with the square of the nodes, sparse ones linearly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from handmesh import Box, Bundle, Predictor
from handmesh.backends import create
from handmesh.nn import build, from_dict
from handmesh.verification import read_reference

from .charts import Line, lines
from .device import describe
from .local import run as measure_all
from .protocol import Candidate, Protocol, Run
from .report import columns, not_measured
from .results import Results
from .variants import precision_of

__all__ = ["AXES", "candidates", "charts_of", "laplacian", "run", "to_text"]

BATCHES = (1, 2, 4, 8, 16)
SIZES = (64, 96, 128, 192, 256)
THREADS = (1, 2, 4, 8)
HANDS = (1, 2, 4, 8)
FACES = (320, 1280, 5120, 20480)
CHANNELS, ORDER = 32, 3
_TORCH = f"torch {torch.__version__}, CPU, 1 thread"
# What is varied -> (title of the x axis, of the y axis).
AXES = {
    "batch": ("crops in one batch", "ms for the batch"),
    "input size": ("pixels, side of the crop", "ms for one crop"),
    "threads": ("threads", "ms for one crop"),
    "hands": ("boxes given for a photo", "ms for the photo"),
    "vertices": ("nodes of the graph", "ms for one graph layer"),
}
Say = Callable[[str], None]
# What runs it once, and what that is in words.
Loaded = tuple[Run, str]


def run(bundle: Bundle, protocol: Protocol, write: Callable[[Results], None], say: Say) -> Results:
    """Measure all of it; partial results are kept as by any run."""
    results = Results(describe())
    return measure_all(candidates(bundle), protocol, results, write, say)


def candidates(bundle: Bundle) -> list[Candidate]:
    """Everything that is varied, one number at a time."""
    images, _ = read_reference(bundle)
    usable = describe()["cores_usable"]
    threads = [n for n in THREADS if n <= int(usable)]
    return [
        *(_batch(bundle, images, n) for n in BATCHES),
        *(_threads(bundle, images, n) for n in threads),
        *(_hands(bundle, images, n) for n in HANDS),
        *(_size(bundle, size) for size in SIZES),
        *(_layer(faces, form) for faces in FACES for form in ("dense", "sparse", "neighbours")),
    ]


def _candidate(
    axis: str, curve: str, x: int, load: Callable[[], Loaded], threads: int = 1,
    precision: str = "fp32",
) -> Candidate:  # fmt: skip
    facts: dict[str, Any] = {
        "task": f"scaling {axis}",
        "network": curve,
        "backend": "torch" if axis in ("vertices", "input size") else "onnx",
        "threads": threads,
        "batch": x if axis == "batch" else 1,
        "precision": precision,
        "provider": "",
        "x": x,
    }
    name = f"scaling {axis} {curve} {x}"

    def loaded() -> Run:
        run, facts["provider"] = load()
        return run

    return Candidate(name, loaded, facts)


def _batch(bundle: Bundle, images: NDArray[np.uint8], count: int) -> Candidate:
    batch = np.resize(images, (count, *images.shape[1:]))

    def load() -> Loaded:
        network = create("onnx", bundle, 1)

        def run() -> None:
            network.run(batch)

        return run, network.description

    return _candidate("batch", bundle.name, count, load, 1, precision_of(bundle, "onnx"))


def _threads(bundle: Bundle, images: NDArray[np.uint8], count: int) -> Candidate:
    def load() -> Loaded:
        network = create("onnx", bundle, count)

        def run() -> None:
            network.run(images[:1])

        return run, network.description

    return _candidate("threads", bundle.name, count, load, count, precision_of(bundle, "onnx"))


def _hands(bundle: Bundle, images: NDArray[np.uint8], count: int) -> Candidate:
    """So many boxes on one photo of crops beside each other. Boxes and sides are given: what a
    search costs depends on what it sees more than on the number of hands. One look at each."""
    side = images.shape[2]
    photo = np.concatenate(list(np.resize(images, (max(HANDS), *images.shape[1:]))), axis=1)
    boxes = [Box((i + 0.5) * side, side / 2, side) for i in range(count)]

    def load() -> Loaded:
        predictor = Predictor(bundle, "onnx", 1)

        def run() -> None:
            predictor.predict(photo, box=boxes, handedness="right", looks=1)

        return run, predictor.backend.description

    return _candidate("hands", bundle.name, count, load, 1, precision_of(bundle, "onnx"))


def _size(bundle: Bundle, size: int) -> Candidate:
    def load() -> Loaded:
        config = from_dict({**bundle.manifest["config"], "input_size": size})
        network = build(config, bundle.topology).eval()
        image = torch.zeros(1, 3, size, size)

        def run() -> None:
            with torch.inference_mode(), _one_thread():
                network(image)

        return run, _TORCH

    return _candidate("input size", bundle.name, size, load)


def laplacian(faces: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Of a sphere of that many triangles, rescaled as the paper does: neighbours and weights.

    Args:
        faces: 20 times a power of four.

    Returns:
        (N, 3) neighbours of each face, and (N, 3) their weights: of the normalised Laplacian
        I - A / 3, whose eigenvalues are at most 2, the rescaled one is 2 L / 2 - I = -A / 3.
    """
    triangles = _icosahedron()
    while len(triangles) < faces:
        triangles = _split(triangles)
    edges = np.sort(triangles[:, [[0, 1], [1, 2], [2, 0]]], axis=2).reshape(-1, 2)  # (3N, 2)
    _, which = np.unique(edges, axis=0, return_inverse=True)
    owner = np.repeat(np.arange(len(triangles)), 3)
    order = np.argsort(which, kind="stable")
    pairs = owner[order].reshape(-1, 2)  # each edge has two faces
    both = np.concatenate([pairs, pairs[:, ::-1]])
    neighbours = both[np.argsort(both[:, 0], kind="stable"), 1].reshape(-1, 3)
    return neighbours, np.full(neighbours.shape, -1 / 3, dtype=np.float32)


def _icosahedron() -> NDArray[np.int64]:
    """20 triangles of 12 corners."""
    top = [[0, 1 + i, 1 + (i + 1) % 5] for i in range(5)]
    bottom = [[11, 6 + i, 6 + (i + 1) % 5] for i in range(5)]
    down = [[1 + i, 1 + (i + 1) % 5, 6 + i] for i in range(5)]
    up = [[6 + i, 6 + (i + 1) % 5, 1 + (i + 1) % 5] for i in range(5)]
    return np.array([*top, *down, *up, *bottom])


def _split(triangles: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each triangle in four."""
    edges = np.sort(triangles[:, [[0, 1], [1, 2], [2, 0]]], axis=2).reshape(-1, 2)
    _, which = np.unique(edges, axis=0, return_inverse=True)
    middle = which.reshape(-1, 3) + triangles.max() + 1  # (N, 3): of 01, 12, 20
    a, b, c = triangles.T
    ab, bc, ca = middle.T
    return np.stack([a, ab, ca, ab, b, bc, ca, bc, c, ab, bc, ca], axis=1).reshape(-1, 3)


def _layer(faces: int, form: str) -> Candidate:
    """A Chebyshev graph convolution of `ORDER` terms on `CHANNELS` features, by recurrence."""

    def load() -> Loaded:
        neighbours, weights = laplacian(faces)
        product = _product(neighbours, weights, form)
        random = torch.Generator().manual_seed(0)
        signal = torch.randn(faces, CHANNELS, generator=random)
        theta = torch.randn(ORDER * CHANNELS, CHANNELS, generator=random)

        def run() -> None:
            with torch.inference_mode(), _one_thread():
                terms = [signal, product(signal)]
                while len(terms) < ORDER:
                    terms.append(2 * product(terms[-1]) - terms[-2])
                torch.cat(terms, dim=1) @ theta  # (N, K C) @ (K C, C)

        return run, _TORCH

    return _candidate("vertices", form, faces, load)


def _product(
    neighbours: NDArray[np.int64], weights: NDArray[np.float32], form: str
) -> Callable[[torch.Tensor], torch.Tensor]:
    """A Laplacian times a signal (N, C): as a dense matrix, as CSR, or gathering neighbours."""
    index, weight = torch.from_numpy(neighbours), torch.from_numpy(weights)
    if form == "neighbours":
        return lambda x: torch.einsum("nk,nkc->nc", weight, x[index])
    count = len(index)
    rows = torch.arange(count).repeat_interleave(index.shape[1])
    sparse = torch.sparse_coo_tensor(
        torch.stack([rows, index.flatten()]), weight.flatten(), (count, count)
    ).coalesce()
    matrix = sparse.to_dense() if form == "dense" else sparse.to_sparse_csr()
    return lambda x: matrix @ x


class _one_thread:  # noqa: N801  (a context manager, used as a function)
    """Torch on one thread, as the other curves."""

    def __enter__(self) -> None:
        self.before = torch.get_num_threads()
        torch.set_num_threads(1)

    def __exit__(self, *error: object) -> None:
        torch.set_num_threads(self.before)


def curves(results: Results, axis: str) -> list[Line]:
    """p50 over what was varied, a line each."""
    rows = [m for m in results.measurements if m.facts["task"] == f"scaling {axis}"]
    names = dict.fromkeys(str(m.facts["network"]) for m in rows)
    return [
        Line(
            name,
            sorted((float(m.facts["x"]), m.total.p50) for m in rows if m.facts["network"] == name),
        )
        for name in names
    ]


def charts_of(results: Results) -> dict[str, str]:
    """An SVG for each thing that was varied."""
    return {
        axis: lines(found, *titles)
        for axis, titles in AXES.items()
        if (found := curves(results, axis)) and len(found[0].points) > 1
    }


def exponent(points: Sequence[tuple[float, float]]) -> float:
    """Slope of the logarithms between the last two points: 1 is linear, 2 the square."""
    (x0, y0), (x1, y1) = points[-2:]
    return float(np.log(y1 / y0) / np.log(x1 / x0))


def to_text(results: Results) -> str:
    """A table for each thing that was varied."""
    out = []
    for axis, (title, unit) in AXES.items():
        for line in curves(results, axis):
            out.append(f"{axis}, {line.name}: {unit}, p50")
            out += columns([title, "p50"], [[f"{x:g}", f"{y:.3f}"] for x, y in line.points])
            if len(line.points) > 1 and axis in ("vertices", "batch"):
                out.append(f"grows with the power {exponent(line.points):.2f} in the end")
            out.append("")
    return "\n".join(out + not_measured(results))
