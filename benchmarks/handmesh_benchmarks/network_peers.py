"""Our network, and its graph decoder alone, in other hands: OpenVINO, torch eagerly and through
torch.compile, and PyTorch Geometric's ChebConv; and whole photos, beside MediaPipe Hands. All of it
on the same photos in one run on the CPU.

::

    python -m handmesh_benchmarks.network_peers --out network_peers.json
    python -m handmesh_benchmarks.network_peers --paper --headline --threads 2 --out FILE

The first run makes three environments in ``~/.cache/handmesh``: with torch and PyTorch Geometric,
with OpenVINO, and with MediaPipe. Every way, ours in ONNX Runtime among them, is a process of its
own that waits while it is not asked; the protocol is that of `handmesh bench`. The crops are the
hands that are found in the photos; the decoder is given what the network makes of them. What
computes something else than ours is not measured.
"""

from __future__ import annotations

if __name__ == "__main__":
    from .command import run

    run(__spec__)

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import handmesh
import handmesh_kernels
from handmesh import Bundle, Predictor, backends
from handmesh.archive import write_arrays
from handmesh.errors import BackendError, BackendUnavailable, InputError, MissingExtra
from handmesh.imaging import crop, decode

from . import local, photo_peers
from .command import add_bundle, add_out, parse, parser_of
from .device import describe
from .environments import INSIDE, Environment, Process
from .keeping import kept, warn_unkept
from .protocol import Candidate, Measurement, Protocol, Run
from .report import not_measured
from .results import Results
from .variants import artifact_facts, precision_of

__all__ = ["NETWORK_WAYS", "OPENVINO", "TORCH", "WAYS", "Given", "candidate", "main", "table"]

PHOTOS = Path("examples/photos")
TORCH = Environment(
    name="torch-2.13.0-geometric-2.8.1",
    title="torch 2.13.0 with PyTorch Geometric 2.8.1",
    packages=("torch==2.13.0", "torch_geometric==2.8.1", "safetensors==0.8.0", "numpy<2.4"),
    needs="a Python that torch has wheels for, see --python",
)
OPENVINO = Environment(
    name="openvino-2026.4.1",
    title="OpenVINO 2026.4.1",
    packages=("openvino==2026.4.1", "numpy<2.4"),
    needs="a Python that OpenVINO has wheels for, see --python",
)
# Where each way runs: None is this environment.
NETWORK_WAYS: Mapping[str, Environment | None] = {
    "network onnxruntime": None,
    "network openvino": OPENVINO,
    "network torch": TORCH,
    "network torch.compile": TORCH,
    "decoder onnxruntime": None,
    "decoder openvino": OPENVINO,
    "decoder torch": TORCH,
    "decoder chebconv": TORCH,
}
WAYS = {**NETWORK_WAYS, **photo_peers.WAYS}
# What the others of a task are compared with.
OURS = ("onnxruntime", "handmesh")
# How far vertices and joints may be off, relative to the largest coordinate. The files of a network
# may hold other roundings of the weights; the decoder's are made from the same ones.
ALLOWED = {"network": 1e-2, "decoder": 1e-3}

Arrays = Mapping[str, NDArray[Any]]
Say = Callable[[str], None]
Table = tuple[list[str], list[list[str]]]


class Given(NamedTuple):
    """What the ways of one task are given, and what they must make of it.

    Attributes:
        request: files, by what `network_child` calls them. wanted: vertices and joints.
    """

    request: Mapping[str, str]
    wanted: Arrays


def candidate(
    way: str, command: Sequence[str], packages: Path, given: Given, facts: Mapping[str, Any],
    folder: Path, stack: contextlib.ExitStack,
) -> Candidate:  # fmt: skip
    """One way, whose process is started when it is loaded.

    Args:
        way: of `WAYS`. command: starts an interpreter of its environment.
        packages: folder with those of ours that it needs. given: see there.
        facts: of the row; "threads" is obeyed. folder: for what it returns.
        stack: ends the process.
    """
    known = dict(facts)
    task = way.split()[0]

    def load() -> Run:
        program = [*command, "-m", "handmesh_benchmarks.network_child"]
        one = {"PYTHONPATH": str(packages), "OMP_NUM_THREADS": str(known["threads"])}
        process = stack.enter_context(Process(program, way, one))
        outputs = folder / f"{known['network']} {way}.npz"
        answer = process.ask(
            {"do": "load", "way": way, "threads": known["threads"], "outputs": str(outputs)}
            | dict(given.request)
        )
        if "missing" in answer:
            raise BackendUnavailable(answer["missing"])
        known["off_by"] = _off(outputs, given.wanted)
        if not known["off_by"] <= ALLOWED[task]:
            raise BackendError(
                f"it computes something else: off by {known['off_by']:.1e} of the largest "
                f"coordinate, at most {ALLOWED[task]:.0e} was expected"
            )
        known["provider"], known["load_and_first_s"] = answer["provider"], answer["load_s"]

        def run() -> Mapping[str, float]:
            return {INSIDE: process.ask({"do": "run"})["ms"]}

        return run

    return Candidate(f"peer {known['network']} {way} {known['threads']}", load, known)


def _off(outputs: Path, wanted: Arrays) -> float:
    with np.load(outputs) as archive:
        return max(
            float(np.abs(archive[name] - array).max() / np.abs(array).max())
            for name, array in wanted.items()
        )


def crops_of(photos: Sequence[Path], bundle: Bundle) -> NDArray[np.uint8]:
    """The hands found in photos, (N, S, S, 3) uint8 RGB as the network sees them.

    Raises:
        InputError: none is found.
    """
    found = []
    with Predictor(bundle, "onnx") as predictor:
        for path in photos:
            image = decode(path)
            found += [
                crop(image, hand.box, bundle.image_size)
                for hand in predictor.predict(image, looks=1)
            ]
    if not found:
        raise InputError("no hand was found in the photos: choose others (--photos)")
    return np.stack(found)


def given_of(bundle: Bundle, images: NDArray[np.uint8], folder: Path) -> dict[str, Given]:
    """What the tasks "network" and "decoder" of a bundle are given, written to a folder.

    Raises:
        MissingExtra: torch or the converters are not installed, which take a network apart.
        BundleError: the bundle has no ONNX file, or is damaged. ExportError: the exporter failed.
    """
    try:
        import torch

        from handmesh_converters.export import load_bundle
        from handmesh_converters.fold import fold
        from handmesh_converters.formats.cuda import head_arrays
        from handmesh_converters.forms import form_named

        from .decoders import exported
    except ImportError as cause:
        raise MissingExtra(cause.name or "torch", "bench") from cause
    model = bundle.artifact("onnx")
    outputs = backends.create("onnx", bundle, 1).run(images)
    write_arrays(folder / "images.npz", {"image": images})
    network = load_bundle(bundle)
    with torch.inference_mode():
        latent = network.latent(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - 0.5)
        inputs = [latent.features] + ([] if latent.anchors is None else [latent.anchors])
        vertices, joints = network.head.double()(*(each.double() for each in inputs))
    network.head.float()
    named = zip(("latent", "joints_uv"), inputs)  # noqa: B905  (the second may be missing)
    write_arrays(folder / "latent.npz", {name: each.numpy() for name, each in named})
    anchored = len(inputs) == 2
    (folder / "decoder.onnx").write_bytes(exported(fold(network).head, anchored))
    request = {"bundle": str(bundle.folder), "constants": str(folder / "head.npz")}
    if anchored:
        arrays = head_arrays(fold(network, form_named("polynomials")).head, "fp32")
        write_arrays(folder / "head.npz", arrays)
    return {
        "network": Given(
            request | {"inputs": str(folder / "images.npz"), "model": str(model)},
            {"vertices": outputs.vertices, "joints": outputs.joints},
        ),
        "decoder": Given(
            request | {"inputs": str(folder / "latent.npz"), "model": str(folder / "decoder.onnx")},
            {"vertices": vertices.numpy(), "joints": joints.numpy()},
        ),
    }


def packages_in(folder: Path) -> Path:
    """Copies of those of our packages that the ways need, and nothing else beside them."""
    place = folder / "packages"
    skipped = shutil.ignore_patterns("__pycache__", "bundles")
    for package in (handmesh, handmesh_kernels, sys.modules[__package__]):
        root = Path(str(package.__file__)).parent
        shutil.copytree(root, place / root.name, ignore=skipped)
    return place


def interpreters(
    ways: Sequence[str], folder: Path | None, python: str, missing: list[str], say: Say
) -> dict[str, Path]:
    """By way; environments are made where they are not there. Those that fail are told."""
    made: dict[str, Path | None] = {}
    found = {}
    for way in ways:
        environment = WAYS[way]
        if environment is None:
            found[way] = Path(sys.executable)
            continue
        if environment.name not in made:
            say(f"environment of {environment.title}")
            try:
                place = None if folder is None else folder / environment.name
                made[environment.name] = environment.prepare(place, python)
            except BackendUnavailable as error:
                made[environment.name] = None
                missing.append(str(error))
        interpreter = made[environment.name]
        if interpreter is not None:
            found[way] = interpreter
    return found


def measure(
    networks: Sequence[Bundle], ways: Mapping[str, Path], photos: Sequence[Path], threads: int,
    protocol: Protocol, results: Results, write: Callable[[Results], None], say: Say,
) -> Results:  # fmt: skip
    """Every way of every network; partial results are kept as by any run.

    Args:
        networks: the first finds the hands. ways: interpreters, see `interpreters`.
        photos: files. threads: of each way. protocol: how long.
        results: filled. write: keeps them after every round. say: told of the progress.
    """
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        packages = packages_in(Path(name))
        candidates = []
        for bundle in networks:
            folder = Path(name) / bundle.name
            folder.mkdir()
            say(f"preparing {bundle.name}")
            given = given_of(bundle, _sized(photos, networks[0], bundle), folder)
            for way, interpreter in ways.items():
                task, runtime = way.split()
                facts = _facts(bundle, task, runtime, threads)
                if way in photo_peers.WAYS:
                    if bundle is networks[0]:
                        candidates.append(
                            photo_peers.candidate(interpreter, bundle, photos, facts, folder, stack)
                        )
                    continue
                if runtime == "chebconv" and not Path(given[task].request["constants"]).is_file():
                    results.missing.append(f"{bundle.name} {way}: its head takes no joints")
                    continue
                candidates.append(
                    candidate(way, [str(interpreter)], packages, given[task], facts, folder, stack)
                )
        return local.run(candidates, protocol, results, write, say)


def _sized(photos: Sequence[Path], finder: Bundle, bundle: Bundle) -> NDArray[np.uint8]:
    import cv2

    images = crops_of(photos, finder)
    size = bundle.image_size
    return np.stack([np.asarray(cv2.resize(image, (size, size)), np.uint8) for image in images])


def _facts(bundle: Bundle, task: str, runtime: str, threads: int) -> dict[str, Any]:
    kept = "torch" if runtime.startswith("torch") or task == "decoder" else "onnx"
    return {
        "task": f"peer {task}",
        "network": bundle.name,
        "backend": runtime,
        "threads": threads,
        "batch": 1,
        # The decoder's files are made of the weights in float32.
        "precision": "fp32" if task == "decoder" else precision_of(bundle, kept),
        "provider": "",
        "artifact": artifact_facts(bundle, kept),
    }


def table(results: Sequence[Results]) -> Table:
    """Rows of peers, each beside ours of the same task; quartiles are over the rounds."""
    header = [
        "run", "network", "task", "what ran", "threads", "p50", "p90", "p99",
        "times ours (quartiles)", "load, first run, s", "off by",
        "photos with a hand",
    ]  # fmt: skip
    cells = []
    for i, result in enumerate(results):
        rows = [m for m in result.measurements if str(m.facts["task"]).startswith("peer ")]
        ours = {_key(m): m for m in rows if m.facts["backend"] in OURS}
        for m in rows:
            inside = m.stages[INSIDE]
            task = str(m.facts["task"]).removeprefix("peer ")
            cells.append(
                [str(i + 1), str(m.facts["network"]), task, str(m.facts["provider"])]
                + [str(m.facts["threads"])]
                + [f"{value or 0:.2f}" for value in (inside.p50, inside.p90, inside.p99)]
                + [_ratio(m, ours.get(_key(m)))]
                + [f"{m.facts['load_and_first_s']:.1f}"]
                + [f"{m.facts['off_by']:.0e}" if "off_by" in m.facts else "-"]
                + [str(m.facts.get("found", "-"))]
            )
    return header, cells


def _key(m: Measurement) -> tuple[str, str, int]:
    return str(m.facts["network"]), str(m.facts["task"]), int(m.facts["threads"])


def _ratio(theirs: Measurement, ours: Measurement | None) -> str:
    """Theirs over ours, medians of the same rounds."""
    if ours is None or ours is theirs:
        return "-"
    pairs = zip(theirs.rounds[INSIDE], ours.rounds[INSIDE])  # noqa: B905  (one may stop short)
    low, middle, high = np.percentile([a / b for a, b in pairs], (25, 50, 75))
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    from .cli import SMOKE_RUNS, SMOKE_SECONDS
    from .page import markdown_table
    from .peers import photo_files

    parser = parser_of(__name__, __doc__)
    add_bundle(parser)
    parser.add_argument("--paper", action="store_true", help="also `paper`, with random weights")
    parser.add_argument(
        "--photos", type=Path, default=PHOTOS, metavar="DIR", help="default %(default)s"
    )
    parser.add_argument("--ways", metavar="A,B", help=f"of {', '.join(WAYS)} (default all)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="default 1")
    parser.add_argument("--headline", action="store_true", help="long enough to quote")
    parser.add_argument(
        "--environments", type=Path, metavar="DIR", help="default: the cache; a folder each"
    )
    parser.add_argument(
        "--python", default=sys.executable, metavar="EXE", help="to make environments with"
    )
    add_out(parser)
    options = parse(parser, arguments)
    ways = list(WAYS) if options.ways is None else [w.strip() for w in options.ways.split(",")]
    unknown = [way for way in ways if way not in WAYS]
    if unknown or options.threads < 1:
        raise InputError(
            f"--ways are of {', '.join(WAYS)}, and --threads at least 1; "
            f"not {', '.join(map(repr, unknown)) or options.threads}"
        )

    def say(line: str) -> None:
        sys.stderr.write(f"{line}\n")

    results = Results(describe())
    photos = photo_files(options.photos)
    results.context["photos"] = f"{len(photos)} in {options.photos}"
    networks = [Bundle.load(options.bundle)]
    networks[0].check()  # what is damaged is an error, and no way that is missing
    if options.paper:
        networks.append(_paper(networks[0], say))
    warn_unkept(options.out, say)
    found = interpreters(ways, options.environments, options.python, results.missing, say)
    if not found:
        raise BackendUnavailable("; ".join(results.missing))
    smoke = Protocol(SMOKE_RUNS, 1.0, max_seconds=SMOKE_SECONDS)
    protocol = Protocol.headline() if options.headline else smoke
    with kept(options.out, say) as write:
        measure(networks, found, photos, options.threads, protocol, results, write, say)
    lines = [f"- {name.replace('_', ' ')}: {value}" for name, value in results.device.items()]
    lines += ["", markdown_table(*table([results]))]
    lines += not_measured(results)
    sys.stdout.write("\n".join(lines) + "\n")
    if options.out is not None:
        sys.stdout.write(f"written to {results.write(options.out)}\n")
    return 0


def _paper(bundle: Bundle, say: Say) -> Bundle:
    wanted = local.Wanted(
        bundle, ["onnx"], [], [], [1], paper=True, parts=False, memory=False,
        artifacts=local.cache(),
    )  # fmt: skip
    return local.paper_bundle(wanted, say)
