"""The public face: what is in it, where it comes from, and what importing it costs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import handmesh

HEAVY = {"cv2", "onnxruntime", "torch", "safetensors", "importlib.metadata"}


def _modules_after(code: str) -> set[str]:
    """Names of the modules that a fresh interpreter has loaded after running some code."""
    script = f"import sys, json\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    return set(json.loads(done.stdout))


def test_importing_loads_neither_runtime_nor_opencv_nor_numpy() -> None:
    modules = _modules_after("import handmesh")
    assert not modules & (HEAVY | {"numpy"})
    assert {name for name in modules if name.startswith("handmesh")} == {"handmesh"}


def test_types_need_numpy_only() -> None:
    code = "import handmesh; handmesh.Box(0, 0, 1); handmesh.Camera.default(64, 64); handmesh.Hand"
    modules = _modules_after(code)
    assert "numpy" in modules
    assert not modules & HEAVY


def test_predictor_loads_no_runtime_before_it_is_made() -> None:
    modules = _modules_after("import handmesh; handmesh.Predictor; handmesh.Bundle")
    assert not modules & {"onnxruntime", "torch", "safetensors"}


def test_command_loads_nothing_heavy_to_say_its_version() -> None:
    code = (
        "import contextlib, io\n"
        "from handmesh.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "    main(['predict', '--help'])"
    )
    assert not _modules_after(code) & {"cv2", "onnxruntime", "torch"}


def test_every_public_name_is_there_and_no_other() -> None:
    for name in handmesh.__all__:
        assert getattr(handmesh, name) is not None
    assert dir(handmesh) == handmesh.__all__ == sorted(handmesh.__all__)
    assert set(handmesh.__all__) == {*handmesh._HOME, "__version__"}


def test_the_face_is_what_the_readme_promises() -> None:
    promised = {"predict", "load", "Predictor", "Bundle", "Camera", "Box", "Hand", "JOINT_NAMES"}
    assert promised <= set(handmesh.__all__)


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Tracer'"):
        handmesh.Tracer  # noqa: B018


def test_version_is_that_of_the_package() -> None:
    assert handmesh.__version__ == "0.1.0"
