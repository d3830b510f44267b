"""The public face of handmesh: these names and no others, each documented, cheap to import."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import handmesh
from handmesh import Predictor, Tracker, errors

PUBLIC = [
    "BONES",
    "BackendError",
    "BackendUnavailable",
    "BoneLength",
    "Box",
    "BoxError",
    "Bundle",
    "BundleError",
    "Camera",
    "CameraError",
    "FINGERS",
    "Hand",
    "HandMeshError",
    "Handedness",
    "ImageError",
    "InputError",
    "IntegrityError",
    "JOINT_NAMES",
    "JOINT_PARENTS",
    "Pose",
    "Predictor",
    "TrackedFrame",
    "TrackedHand",
    "Tracker",
    "__version__",
    "bone_length_from_depth",
    "bone_length_from_object",
    "load",
    "open_video",
    "predict",
    "save_animation",
]
HEAVY = {
    "anny",
    "cv2",
    "importlib.metadata",
    "matplotlib",
    "numpy",
    "onnx",
    "onnxruntime",
    "safetensors",
    "scipy",
    "torch",
    "tqdm",
}


def _in_fresh_process(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _loaded_after(code: str) -> set[str]:
    """The heavy packages and those of our own modules that a fresh process has loaded after some
    code."""
    report = "import sys, json; print(json.dumps(sorted(sys.modules)))"
    modules = json.loads(_in_fresh_process(f"{code}\n{report}"))
    return {name for name in modules if name in HEAVY or name.startswith("handmesh")}


def test_exactly_these_names_are_public() -> None:
    assert handmesh.__all__ == dir(handmesh) == sorted(PUBLIC)
    assert set(PUBLIC) == {*handmesh._HOME, "__version__"}


def test_every_public_name_can_be_had() -> None:
    for name in PUBLIC:
        assert getattr(handmesh, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = handmesh.Nonsense


def _public_callables() -> Iterator[tuple[str, object]]:
    for name in PUBLIC:
        value = getattr(handmesh, name)
        if not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        yield name, value
        if inspect.isclass(value) and not issubclass(value, Exception):
            for method, member in vars(value).items():
                inner = getattr(member, "__func__", getattr(member, "fget", member))
                if not method.startswith("_") and inspect.isfunction(inner):
                    yield f"{name}.{method}", inner


def test_everything_public_is_documented() -> None:
    bare = [
        name for name, value in _public_callables() if not (inspect.getdoc(value) or "").strip()
    ]
    assert bare == []


@pytest.mark.parametrize("documented", [Predictor, Predictor.predict, Tracker])
def test_every_argument_is_documented(documented: Callable[..., object]) -> None:
    forgotten = [
        argument
        for argument in inspect.signature(documented).parameters
        if argument != "self" and f"{argument}:" not in (inspect.getdoc(documented) or "")
    ]
    assert forgotten == []


@pytest.mark.parametrize(
    ("short", "full"),
    [(handmesh.predict, Predictor.predict), (handmesh.load, Predictor)],
)
def test_short_forms_take_what_the_class_takes(
    short: Callable[..., object], full: Callable[..., object]
) -> None:
    def arguments(function: Callable[..., object]) -> dict[str, object]:
        parameters = inspect.signature(function).parameters.values()
        return {p.name: (p.default, p.annotation) for p in parameters if p.name != "self"}

    assert arguments(short) == arguments(full)


def test_pages_can_be_made_of_the_docstrings(tmp_path: Path) -> None:
    """As `make docs` does."""
    pytest.importorskip("pdoc", reason="pdoc is not installed")
    makefile = (Path(__file__).parents[1] / "Makefile").read_text(encoding="utf-8")
    command = re.search(r"-m (pdoc .*) --output-directory", makefile)
    assert command is not None
    done = subprocess.run(
        [sys.executable, "-m", *command[1].split(), "-o", str(tmp_path), "handmesh"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Warn" not in done.stderr
    page = (tmp_path / "handmesh.html").read_text(encoding="utf-8")
    missing = [name for name in PUBLIC if f'id="{name}"' not in page and name != "__version__"]
    assert missing == []


def test_errors_form_the_documented_tree() -> None:
    drawn = errors.__doc__ or ""
    for name in errors.__all__:
        error = getattr(errors, name)
        assert issubclass(error, errors.HandMeshError)
        assert f"{name} " in drawn or f"{name}\n" in drawn, f"{name} is missing from the drawing"
    assert issubclass(errors.InputError, ValueError)
    assert issubclass(errors.BackendUnavailable, ImportError)
    assert issubclass(errors.MissingExtra, ImportError)


def test_import_loads_no_runtime_and_no_library() -> None:
    assert _loaded_after("import handmesh") == {"handmesh"}


def test_types_need_numpy_alone() -> None:
    code = "from handmesh import Box, Camera, Hand; Box(0, 0, 1); Camera.default(64, 64)"
    assert _loaded_after(code) & HEAVY == {"numpy"}


def test_predict_loads_its_runtime_on_first_use_only() -> None:
    loaded = _loaded_after("from handmesh import Bundle, Predictor, predict")
    assert not loaded & {"onnxruntime", "safetensors", "torch"}


@pytest.mark.parametrize("command", ["predict", "track", "sheet", "info", "verify"])
def test_command_loads_nothing_heavy_to_explain_itself(command: str) -> None:
    code = (
        "import contextlib, io\n"
        "from handmesh.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        f"    main(['{command}', '--help'])"
    )
    assert _loaded_after(code) & HEAVY == {"importlib.metadata"}


def test_import_is_quick() -> None:
    code = (
        "import time; start = time.process_time(); import handmesh; "
        "print(time.process_time() - start)"
    )

    assert min(float(_in_fresh_process(code)) for _ in range(3)) < 0.2


def test_type_information_ships() -> None:
    assert importlib.resources.files("handmesh").joinpath("py.typed").is_file()


def test_the_version_is_the_distribution_s() -> None:
    assert handmesh.__version__ == importlib.metadata.version("handmesh")
