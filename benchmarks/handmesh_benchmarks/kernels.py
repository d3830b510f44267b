"""The graph head on a GPU: our kernels against PyTorch Geometric, cuSPARSE and cuBLAS.

::

    python -m handmesh_benchmarks.kernels --out kernels.json
    python -m handmesh_benchmarks.kernels --batches 1 8 64 --storage fp32 fp16
    python -m handmesh_benchmarks.kernels --heads DIR     # only write DIR/fp32.npz, DIR/fp16.npz
    python -m handmesh_benchmarks.kernels --constants DIR # read them: torch and CuPy suffice

Device time by events around `RUNS` heads on end, inputs rotated, the median of `REPEATS`; each way
eagerly and as a CUDA graph. Before it is timed each way is compared with float64. The floor is
what bytes (each constant and input read once, each result written once) or operations cost at the
rates that this device reaches in a large copy and a large matrix product.
"""

from __future__ import annotations

if __name__ == "__main__":
    from .command import run

    run(__spec__)

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from handmesh.archive import write_arrays
from handmesh.atomic import write_atomic
from handmesh.errors import BackendUnavailable, InputError
from handmesh.graph import Topology
from handmesh_kernels import twin
from handmesh_kernels.constants import HeadConstants, Storage
from handmesh_kernels.errors import KernelError
from handmesh_kernels.launcher import GraphHead
from handmesh_kernels.packing import pack
from handmesh_kernels.params import Shape

from .command import add_out, parse, parser_of
from .kernels_peers import PEERS, make
from .report import markdown, short

RUNS, REPEATS, INPUTS = 20, 50, 8
DTYPES = {"fp32": torch.float32, "fp16": torch.float16}
# What a way may be off by, relative to the largest vertex coordinate. Peers compute in half as well
# as store it.
ALLOWED = {"fp32": 1e-4, "fp16": 2e-2}

Inputs = list[tuple[Tensor, Tensor]]
Heads = dict[Storage, HeadConstants]


@dataclass(frozen=True)
class Cost:
    """Of one head at one batch: bytes that have to be moved, operations (two a multiply-add)."""

    bytes: int
    operations: int


@dataclass(frozen=True)
class Timed:
    """One way at one batch; microseconds a head, None where it could not run.

    Attributes:
        note: why it could not, or how far it is from float64.
        floor_us: see the module. bound: "bytes" or "operations", which the floor is of.
    """

    way: str
    storage: str
    batch: int
    eager_us: float | None
    graph_us: float | None
    floor_us: float
    bound: str
    note: str


def cost(constants: HeadConstants, batch: int) -> Cost:
    """Counted as the kernels compute it."""
    packed = pack(constants, Shape.of(constants))
    vertices = constants.vertex_count
    moved = sum(array.nbytes for array in packed.arrays.values())
    moved += batch * 4 * (constants.features + 42 + 3 * vertices + 63)
    products = constants.expand_weight.size
    for conv in constants.convolutions:
        order, inputs, outputs = conv.theta.shape
        products += conv.inputs * order * inputs * outputs
        products += int((conv.values != 0).sum()) * outputs
    products += vertices * 21 * 2 + 64 * 3 * vertices
    return Cost(moved, 2 * batch * products)


def roofs() -> dict[str, float]:
    """Bytes a second of a large copy; operations a second of large products, by storage."""
    found = {}
    source = torch.empty(1 << 28, device="cuda").normal_()  # 1 GiB
    copy = torch.empty_like(source).copy_
    found["bytes"] = 2 * source.nbytes / _median_us(lambda: copy(source), runs=5, repeats=5) * 1e6
    torch.backends.cuda.matmul.allow_tf32 = False
    for storage, dtype in DTYPES.items():
        a, b = (torch.randn(4096, 4096, device="cuda").to(dtype) for _ in range(2))
        product = functools.partial(torch.matmul, a, b)
        found[storage] = 2 * 4096**3 / _median_us(product, runs=5, repeats=5) * 1e6
    return found


def measure(
    heads: Heads,
    topology: Topology,
    storages: Sequence[Storage],
    batches: Sequence[int],
    rates: dict[str, float],
) -> list[Timed]:
    """Everything, on the current CUDA device."""
    exact = heads["fp32"]
    found = []
    for storage in storages:
        constants = heads[storage]
        for batch in batches:
            inputs = _inputs(constants, batch)
            wanted = [
                twin.run(exact, latent.cpu().numpy(), uv.cpu().numpy()).vertices
                for latent, uv in inputs
            ]
            spent = cost(constants, batch)
            floors = {
                "bytes": spent.bytes / rates["bytes"],
                "operations": spent.operations / rates[storage],
            }
            bound = max(floors, key=lambda name: floors[name])
            ways = ("ours", *(["ours, no tensor cores"] if storage == "fp16" else []), *PEERS)
            for way in ways:
                eager, graph, note = _time(way, constants, topology, inputs, wanted)
                found.append(
                    Timed(way, storage, batch, eager, graph, floors[bound] * 1e6, bound, note)
                )
                print(render(found[-1:], header=len(found) == 1), flush=True)
    return found


def _time(
    way: str, constants: HeadConstants, topology: Topology, inputs: Inputs, wanted: list[Any]
) -> tuple[float | None, float | None, str]:
    """Eager and graph microseconds, and a note."""
    try:
        eager, graphs, vertices = _prepared(way, constants, topology, inputs)
        if eager is None:
            return None, None, "not installed"
        error = 0.0
        for i, reference in enumerate(wanted):
            eager(i)
            torch.cuda.synchronize()
            difference = np.abs(vertices(i).astype(np.float64) - reference).max()
            error = max(error, float(difference / np.abs(reference).max()))
        if not error < ALLOWED[constants.storage]:
            return None, None, f"wrong: off by {error:.1e}"
        return _rotated(eager), None if graphs is None else _rotated(graphs), f"{error:.1e}"
    except (RuntimeError, KernelError) as cause:  # what a version cannot do
        return None, None, str(cause).strip() or type(cause).__name__


def _prepared(
    way: str, constants: HeadConstants, topology: Topology, inputs: Inputs
) -> tuple[Any, Any, Any]:
    """Runs input i eagerly, replays its graph, fetches its vertices after an eager run."""
    if way.startswith("ours"):
        tensor_cores = False if "no tensor" in way else None
        batch = len(inputs[0][0])
        head = GraphHead(constants, batch, "cupy", tensor_cores=tensor_cores)
        stream = torch.cuda.current_stream().cuda_stream
        addresses = [(latent.data_ptr(), uv.data_ptr()) for latent, uv in inputs]
        replays = [head.capture(*pair, batch) for pair in addresses]
        last: list[Any] = [None]

        def run(i: int) -> None:
            last[0] = head.run(*addresses[i], batch, stream)[0]

        return run, lambda i: replays[i](stream), lambda i: head.fetch(last[0], stream)
    peer = make(way, constants, topology, "cuda", DTYPES[constants.storage])
    if peer is None:
        return None, None, None
    results: list[Any] = [None] * len(inputs)

    def run_peer(i: int) -> None:
        results[i] = peer(*inputs[i])

    for _ in range(3):  # libraries choose and allocate in their first runs
        for i in range(len(inputs)):
            run_peer(i)
    graphs = []
    try:
        for pair in inputs:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                peer(*pair)
            graphs.append(graph)
    except RuntimeError:  # a library that waits or copies in between cannot be recorded
        torch.cuda.synchronize()
        graphs = []
    replay = (lambda i: graphs[i].replay()) if graphs else None
    return run_peer, replay, lambda i: results[i][0].float().cpu().numpy()


def _rotated(run: Callable[[int], None]) -> float:
    count = 0

    def one() -> None:
        nonlocal count
        run(count % INPUTS)
        count += 1

    return _median_us(one, RUNS, REPEATS)


def _median_us(run: Callable[[], Any], runs: int, repeats: int) -> float:
    """Median device time of a run, in microseconds, of `runs` on end."""
    for _ in range(runs):
        run()
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(runs):
            run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1e3 / runs)
    return float(np.median(times))


def _inputs(constants: HeadConstants, batch: int) -> Inputs:
    generator = torch.Generator().manual_seed(batch)
    return [
        (
            torch.randn(batch, constants.features, generator=generator).cuda(),
            torch.rand(batch, 21, 2, generator=generator).cuda(),
        )
        for _ in range(INPUTS)
    ]


def arrays(bundle: str) -> tuple[dict[str, dict[str, Any]], Topology]:
    """A bundle's head by storage, as `HeadConstants.from_arrays` takes it, and its graph."""
    # Only here: on a machine that has but torch and CuPy the constants are read from files.
    from handmesh.bundle import Bundle
    from handmesh_converters.export import load_bundle
    from handmesh_converters.fold import fold
    from handmesh_converters.formats.cuda import head_arrays
    from handmesh_converters.forms import form_named

    loaded = Bundle.load(bundle)
    head = fold(load_bundle(loaded), form_named("polynomials")).head
    return {storage: head_arrays(head, storage) for storage in DTYPES}, loaded.topology


def read_heads(folder: Path) -> Heads:
    """What `--heads` wrote.

    Raises:
        ConstantsError: a file is missing or no head.
    """
    return {
        "fp32": HeadConstants.load(folder / "fp32.npz"),
        "fp16": HeadConstants.load(folder / "fp16.npz"),
    }


def _heads(bundle: str, constants: Path | None) -> tuple[Heads, Topology]:
    if constants is not None:
        try:
            heads, topology = read_heads(constants), Topology.default()
        except KernelError as cause:
            raise InputError(f"{cause}; give --constants a folder that --heads wrote") from cause
    else:
        made, topology = arrays(bundle)
        fp32, fp16 = (HeadConstants.from_arrays(made[storage]) for storage in ("fp32", "fp16"))
        heads = {"fp32": fp32, "fp16": fp16}
    if heads["fp32"].blend is None:
        raise InputError(
            "the head takes no joints (anchor_to_heatmaps is off), and the peers compute heads "
            f"that do: give --{'bundle' if constants is None else 'constants'} of another network"
        )
    return heads, topology


def render(rows: Sequence[Timed], header: bool = True) -> str:
    """A table; times in microseconds."""
    lines = []
    if header:
        lines += [
            "| way | storage | batch | eager us | graph us | floor us | bound by | graph / floor "
            "| off by |",
            "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
    for row in rows:
        times = ["" if time is None else f"{time:.1f}" for time in (row.eager_us, row.graph_us)]
        ratio = "" if row.graph_us is None else f"{row.graph_us / row.floor_us:.1f}"
        lines.append(
            f"| {row.way} | {row.storage} | {row.batch} | {times[0]} | {times[1]} "
            f"| {row.floor_us:.2f} | {row.bound} | {ratio} | {markdown(short(row.note))} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = parser_of(__name__, __doc__)
    parser.add_argument("--bundle", default="light", metavar="BUNDLE")
    parser.add_argument("--storage", nargs="+", choices=tuple(DTYPES), default=list(DTYPES))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 64], metavar="N")
    add_out(parser)
    parser.add_argument("--heads", type=Path, metavar="DIR", help="write constants, and end")
    parser.add_argument(
        "--constants", type=Path, metavar="DIR", help="that --heads wrote, in place of --bundle"
    )
    options = parse(parser, arguments)
    if options.heads is not None:
        try:
            options.heads.mkdir(parents=True, exist_ok=True)
        except OSError as cause:
            raise InputError(
                f"cannot make the folder {options.heads}: {cause.strerror}; give --heads another"
            ) from cause
        for storage, found_arrays in arrays(options.bundle)[0].items():
            write_arrays(options.heads / f"{storage}.npz", found_arrays)
        return 0
    if not torch.cuda.is_available():
        raise BackendUnavailable(
            "torch sees no CUDA GPU here: run this on a machine with one; --heads works anywhere"
        )
    heads, topology = _heads(options.bundle, options.constants)
    rates = roofs()
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}; reached here: "
        f"{rates['bytes'] / 1e9:.0f} GB/s copied, {rates['fp32'] / 1e12:.1f} TFLOP/s fp32, "
        f"{rates['fp16'] / 1e12:.1f} TFLOP/s fp16"
    )
    with torch.inference_mode():
        found = measure(heads, topology, options.storage, options.batches, rates)
    if options.out is not None:
        report = {
            "device": torch.cuda.get_device_name(),
            "torch": torch.__version__,
            "roofs": rates,
            "runs": RUNS,
            "repeats": REPEATS,
            "timed": [asdict(row) for row in found],
        }
        write_atomic(options.out, (json.dumps(report, indent=2) + "\n").encode())
    wrong = [row for row in found if row.way.startswith("ours") and row.eager_us is None]
    return 1 if wrong else 0
