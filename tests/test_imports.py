"""Who may import whom, read from the source, so that a rule holds also for code no test runs.

The rules are data at the top; the checker below knows only imports. It is itself tested on trees
with planted violations.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

FOLDERS = {
    "handmesh": "sdk",
    "handmesh_training": "training",
    "handmesh_converters": "converters",
    "handmesh_kernels": "kernels",
    "handmesh_benchmarks": "benchmarks",
}

# Which of our packages each of them may import besides itself.
FIRST_PARTY: Mapping[str, frozenset[str]] = {
    "handmesh": frozenset(),
    "handmesh_training": frozenset({"handmesh"}),
    "handmesh_converters": frozenset({"handmesh"}),
    "handmesh_kernels": frozenset(),
    "handmesh_benchmarks": frozenset(FOLDERS),
}

# Inside handmesh a module may import from its own layer and from those before it.
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"closing", "errors", "installing", "ort", "spelling", "styles"}),
    frozenset({"camera"}),
    frozenset({"types"}),
    frozenset(
        {
            "animation",
            "archive",
            "atomic",
            "bundle",
            "coarsening",
            "calibration",
            "draw",
            "exif",
            "files",
            "geometry",
            "glb",
            "graph",
            "headers",
            "imaging",
            "looks",
            "manifest",
            "nn",
            "rig",
            "search",
            "sheet",
            "smoothing",
            "tracks",
            "video",
        }
    ),
    frozenset({"backends"}),
    frozenset(
        {
            "pipeline",
            "detector",
            "finding",
            "arguments",
            "predictor",
            "verification",
            "detector_verification",
        }
    ),
    frozenset({"tracker"}),
    frozenset(
        {
            "cli",
            "cli_completion",
            "cli_info",
            "cli_photos",
            "cli_predict",
            "cli_shared",
            "cli_sheet",
            "cli_track",
        }
    ),
    frozenset({"__main__"}),
    frozenset({"__init__"}),
)

# Imports that go up a layer, or across packages, on use only (inside a function).
ON_USE: frozenset[tuple[str, str]] = frozenset(
    {
        ("handmesh.types", "handmesh.draw"),  # Hand.draw
        ("handmesh.camera", "handmesh.exif"),  # Camera.from_exif
        ("handmesh.types", "handmesh.files"),  # Hand.save
        ("handmesh.types", "handmesh.rig"),  # Hand.pose
        ("handmesh.bundle", "handmesh.backends"),  # what makes an artifact that is missing
        ("handmesh.backends.cuda", "handmesh_kernels"),
    }
)

# The networks are for training, converters and the torch backend; the command only describes them.
NN_IMPORTERS = frozenset({"handmesh.backends.torch", "handmesh.cli_info"})

# Third-party packages that a module may import: the longest prefix of its name decides.
COMMON = frozenset({"numpy"})
THIRD_PARTY: Mapping[str, frozenset[str]] = {
    "handmesh": COMMON,
    "handmesh.imaging": COMMON | {"cv2"},
    "handmesh.draw": COMMON | {"cv2"},
    "handmesh.predictor": COMMON | {"cv2"},
    "handmesh.cli_completion": COMMON | {"shtab"},
    "handmesh.cli_predict": COMMON | {"cv2", "tqdm"},
    "handmesh.cli_sheet": COMMON | {"cv2", "tqdm"},
    "handmesh.cli_track": COMMON | {"cv2", "tqdm"},
    "handmesh.sheet": COMMON | {"cv2"},
    "handmesh.video": COMMON | {"cv2"},
    "handmesh.backends.onnx": COMMON | {"onnxruntime"},
    "handmesh.backends.cuda": COMMON | {"onnxruntime"},
    "handmesh.backends.torch": COMMON | {"torch"},
    "handmesh.backends.coreml": COMMON | {"coremltools", "PIL"},
    "handmesh.backends.tflite": COMMON | {"ai_edge_litert", "tflite_runtime"},
    "handmesh.nn": COMMON | {"torch", "safetensors"},
    "handmesh_kernels": COMMON | {"cupy", "pycuda"},
    "handmesh_converters": COMMON
    | {"torch", "onnx", "onnxruntime", "onnxscript", "onnxsim", "safetensors", "tqdm"},
    "handmesh_converters.formats.coreml": COMMON | {"coremltools", "torch"},
    "handmesh_converters.mil": COMMON | {"coremltools", "torch"},
    "handmesh_converters.formats.tflite": COMMON | {"ai_edge_litert", "litert_torch", "torch"},
    "handmesh_converters.flatbuffer": COMMON | {"ai_edge_litert", "flatbuffers"},
    "handmesh_converters.quantizer": COMMON | {"ai_edge_quantizer"},
    "handmesh_training": COMMON | {"torch", "cv2", "matplotlib", "safetensors", "scipy", "tqdm"},
    # Only what builds the template from its source may ask for the source.
    "handmesh_training.template": COMMON | {"anny", "scipy", "torch"},
    "handmesh_benchmarks.kernels_peers": COMMON | {"torch", "torch_geometric"},
    "handmesh_benchmarks": COMMON | {"cv2", "onnxruntime", "torch", "tqdm"},
    "handmesh_benchmarks.landmark_network": COMMON | {"ai_edge_litert"},
    "handmesh_benchmarks.mediapipe_child": COMMON | {"mediapipe"},
    "handmesh_benchmarks.network_child": COMMON
    | {"onnxruntime", "openvino", "torch", "torch_geometric"},
    # What another device runs must ask for nothing that it may not have.
    "handmesh_benchmarks.protocol": COMMON,
    "handmesh_benchmarks.device": COMMON,
    "handmesh_benchmarks.runner": COMMON,
    "handmesh_benchmarks.runtimes": COMMON,
    "handmesh_benchmarks.devices.coreml": COMMON | {"coremltools"},
}


@dataclass(frozen=True)
class Import:
    """One import statement: ``importer`` names ``target``, both as absolute dotted names."""

    importer: str
    target: str
    line: int
    on_use: bool

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.target}"


def modules_in(root: Path) -> dict[str, Path]:
    """Dotted name -> file of every module of our packages under a repository root."""
    found: dict[str, Path] = {}
    for package, folder in FOLDERS.items():
        base = root / folder
        for path in sorted((base / package).rglob("*.py")):
            parts = path.relative_to(base).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_in(name: str, path: Path, known: Mapping[str, Path]) -> Iterator[Import]:
    """Every import of one module, but those for the type checker alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]

    def visit(node: ast.AST, on_use: bool) -> Iterator[Import]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for child in node.orelse:
                yield from visit(child, on_use)
            return
        for target in _targets(node, package, known):
            yield Import(name, target, getattr(node, "lineno", 0), on_use)
        inside = on_use or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inside)

    yield from visit(tree, False)


def _targets(node: ast.AST, package: str, known: Mapping[str, Path]) -> list[str]:
    """Absolute names that a node imports; a name in a package counts as a module if it is one."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            parents = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*parents, *([node.module] if node.module else [])])
        names = [f"{base}.{alias.name}" for alias in node.names]
        return [name if name in known or name.endswith(".__version__") else base for name in names]
    if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in {
        "import_module",
        "__import__",
    }:
        first = node.args[0] if node.args else None
        if isinstance(first, ast.Constant) and isinstance(first.value, str):
            relative = first.value.startswith(".")
            return [f"{package}{first.value}" if relative else first.value]
    return []


def _layer(module: str) -> int | None:
    """Layer of a module of handmesh; None if nobody gave it one."""
    parts = module.split(".")
    head = parts[1] if len(parts) > 1 else "__init__"
    return next((i for i, layer in enumerate(LAYERS) if head in layer), None)


def _allowed_third_party(module: str) -> frozenset[str]:
    parts = module.split(".")
    prefixes = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next(THIRD_PARTY[prefix] for prefix in prefixes if prefix in THIRD_PARTY)


def _problem(entry: Import) -> str | None:
    """Why one import is against the rules, or None."""
    importer_top, target_top = entry.importer.split(".")[0], entry.target.split(".")[0]
    if entry.on_use and any(
        entry.importer == importer and (entry.target + ".").startswith(target + ".")
        for importer, target in ON_USE
    ):
        return None
    if target_top in FOLDERS:
        if target_top != importer_top:
            if target_top not in FIRST_PARTY[importer_top]:
                return f"{importer_top} must not import {target_top}"
            return None
        return _problem_inside_handmesh(entry) if importer_top == "handmesh" else None
    if target_top in sys.stdlib_module_names:
        return None
    if target_top not in _allowed_third_party(entry.importer):
        return f"{target_top} is not among the packages that this module may import"
    return None


def _problem_inside_handmesh(entry: Import) -> str | None:
    if entry.target == "handmesh.__version__":
        return None
    importer, target = _layer(entry.importer), _layer(entry.target)
    for module, layer in ((entry.importer, importer), (entry.target, target)):
        if layer is None:
            return f"{module} has no layer; give it one in LAYERS"
    assert importer is not None
    assert target is not None
    nn = "handmesh.nn"
    from_outside = not (entry.importer + ".").startswith(nn + ".")
    if (entry.target + ".").startswith(nn + ".") and from_outside:
        if entry.importer not in NN_IMPORTERS:
            return "the networks are not for this module"
        if entry.importer == "handmesh.cli_info" and not entry.on_use:
            return "the command imports the networks on use only"
    if target > importer:
        return "a lower layer must not import a higher one"
    return None


def _cycles(entries: list[Import]) -> list[str]:
    """Circles of imports at module level among our modules."""
    graph: dict[str, set[str]] = {}
    for entry in entries:
        ours = entry.target.split(".")[0] in FOLDERS and not entry.target.endswith(".__version__")
        if ours and not entry.on_use:
            graph.setdefault(entry.importer, set()).add(entry.target)
    found: list[str] = []
    done: set[str] = set()

    def walk(module: str, trail: tuple[str, ...]) -> None:
        if module in trail:
            found.append(" -> ".join((*trail[trail.index(module) :], module)))
            return
        if module in done:
            return
        for target in sorted(graph.get(module, ())):
            walk(target, (*trail, module))
        done.add(module)

    for module in sorted(graph):
        walk(module, ())
    return found


def problems_in(root: Path) -> list[str]:
    """What the packages under a repository root import against the rules, one line each."""
    known = modules_in(root)
    entries = [entry for name, path in known.items() for entry in imports_in(name, path, known)]
    found = [f"{entry}: {why}" for entry in entries if (why := _problem(entry)) is not None]
    return found + [f"circular import: {cycle}" for cycle in _cycles(entries)]


def test_packages_keep_the_import_rules() -> None:
    known = modules_in(ROOT)
    assert set(FOLDERS) <= set(known), "the checker must have found every package"
    assert problems_in(ROOT) == []


def test_top_level_folders_are_not_packages() -> None:
    assert [folder for folder in FOLDERS.values() if (ROOT / folder / "__init__.py").exists()] == []


def _plant(root: Path, files: Mapping[str, str]) -> None:
    for package, folder in FOLDERS.items():
        (root / folder / package).mkdir(parents=True, exist_ok=True)
        (root / folder / package / "__init__.py").touch()
    for name, source in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.startswith("sdk/") and path.parent.name != "handmesh":
            (path.parent / "__init__.py").touch()
        path.write_text(source, encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "source", "expected"),
    [
        ("training/handmesh_training/a.py", "import handmesh_converters.fold", "must not import"),
        ("converters/handmesh_converters/a.py", "from handmesh_training import x", "must not"),
        ("kernels/handmesh_kernels/a.py", "import handmesh", "must not import handmesh"),
        ("sdk/handmesh/predictor.py", "import handmesh_kernels", "must not import"),
        ("sdk/handmesh/backends/cuda.py", "import handmesh_kernels", "must not import"),
        ("sdk/handmesh/types.py", "from . import predictor", "higher"),
        ("sdk/handmesh/types.py", "def f():\n    from .predictor import P", "higher"),
        ("sdk/handmesh/types.py", "from .draw import overlay", "higher"),
        ("sdk/handmesh/geometry.py", "import handmesh.cli", "higher"),
        ("sdk/handmesh/imaging.py", "from handmesh import predict", "higher"),
        ("sdk/handmesh/errors.py", "from .types import Box", "higher"),
        ("sdk/handmesh/utils.py", "from . import errors", "no layer"),
        ("sdk/handmesh/predictor.py", "from .nn import build", "not for this module"),
        ("sdk/handmesh/cli_info.py", "from .nn import build", "on use only"),
        ("sdk/handmesh/geometry.py", "import scipy.spatial", "scipy is not among"),
        ("sdk/handmesh/predictor.py", "def f():\n    import torch", "torch is not among"),
        ("sdk/handmesh/bundle.py", "import importlib\nimportlib.import_module('torch')", "torch"),
        ("sdk/handmesh/backends/torch.py", "import onnxruntime", "onnxruntime is not among"),
        ("training/handmesh_training/data.py", "import anny", "anny is not among"),
        ("converters/handmesh_converters/fold.py", "import anny", "anny is not among"),
    ],
)
def test_planted_violations_are_found(
    tmp_path: Path, file: str, source: str, expected: str
) -> None:
    _plant(tmp_path, {"sdk/handmesh/predictor.py": "", "sdk/handmesh/nn/layers.py": ""})
    _plant(tmp_path, {file: source})

    found = problems_in(tmp_path)

    assert len(found) == 1
    assert expected in found[0]


def test_circular_imports_are_found(tmp_path: Path) -> None:
    _plant(
        tmp_path,
        {
            "sdk/handmesh/graph.py": "from .bundle import a",
            "sdk/handmesh/bundle.py": "from .graph import b",
        },
    )

    assert any("circular import" in line for line in problems_in(tmp_path))


def test_allowed_imports_pass(tmp_path: Path) -> None:
    typing_only = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .cli import main"
    _plant(
        tmp_path,
        {
            "sdk/handmesh/types.py": "import numpy\ndef f():\n    from .draw import overlay",
            "sdk/handmesh/draw.py": "import cv2\nfrom .types import Hand",
            "sdk/handmesh/bundle.py": "from . import __version__",
            "sdk/handmesh/geometry.py": typing_only,
            "sdk/handmesh/nn/__init__.py": "import torch\nfrom ..graph import Topology",
            "sdk/handmesh/graph.py": "import hashlib",
            "sdk/handmesh/backends/cuda.py": "def f():\n    import handmesh_kernels.launch",
            "sdk/handmesh/backends/torch.py": "import torch\nfrom ..nn import build",
            "sdk/handmesh/cli_info.py": "def info():\n    from .nn import build",
            "training/handmesh_training/template/source.py": "import anny",
            "benchmarks/handmesh_benchmarks/a.py": "import handmesh_converters, handmesh_training",
        },
    )

    assert problems_in(tmp_path) == []
