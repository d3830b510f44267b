"""Options of ONNX Runtime's sessions, as the installed runtime reads them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest

from handmesh import ort
from handmesh.bundle import Bundle
from handmesh.errors import BackendError


def test_threads_are_those_asked_for_and_do_not_spin() -> None:
    options = ort.session_options(onnxruntime, 3)
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (3, 1)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_a_session_opens_or_says_what_it_could_not_open(tmp_path: Path) -> None:
    options = ort.session_options(onnxruntime, 1)
    session = ort.open_session(onnxruntime, Bundle.load().artifact("onnx"), options, [ort.CPU])
    assert session.get_providers() == [ort.CPU]
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    with pytest.raises(BackendError, match=r"cannot load .*broken\.onnx"):
        ort.open_session(onnxruntime, broken, options, [ort.CPU])


@pytest.mark.parametrize(
    "use",
    [
        "handmesh.predict(numpy.zeros((64, 64, 3), numpy.uint8), box=(8, 8, 56, 56))",
        "import handmesh_benchmarks.decoders, onnxruntime",
        f"sys.path.insert(0, {str(Path(__file__).parents[1])!r})\nimport conftest, onnxruntime",
    ],
    ids=["sdk", "benchmarks", "tests"],
)
def test_nothing_is_told_to_the_maker_of_the_runtime(tmp_path: Path, use: str) -> None:
    """ONNX Runtime would keep a number of the device below HOME, and send it."""
    names = ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "LOCALAPPDATA")
    surroundings = {name: value for name, value in os.environ.items() if name not in names}
    surroundings |= {"HOME": str(tmp_path), "USERPROFILE": str(tmp_path)}
    program = (
        f"import os, sys, numpy, handmesh\n{use}\n"
        "assert 'onnxruntime' in sys.modules\n"
        "print(os.environ['ORT_DISABLE_TELEMETRY'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=surroundings, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.split() == ["1"]
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_products_are_exact_unless_told_otherwise() -> None:
    assert ort.cuda_options()["use_tf32"] == 0
    assert "use_tf32" not in ort.cuda_options(exact=False), (
        "older ones refuse what they do not know"
    )


def test_engines_lie_in_a_bundle_or_where_it_is_said(tmp_path: Path) -> None:
    assert ort.engine_folder(tmp_path, False) is None
    assert list(tmp_path.iterdir()) == []
    assert ort.engine_folder(tmp_path, True) == str(tmp_path / ".engines")
    elsewhere = tmp_path / "some" / "where"
    assert ort.engine_folder(tmp_path, elsewhere) == str(elsewhere)
    assert elsewhere.is_dir()
    kept = ort.tensorrt_options(128, 16, str(elsewhere))
    assert kept["trt_engine_cache_path"] == str(elsewhere)
    assert kept["trt_profile_max_shapes"] == "image:16x128x128x3"
    assert set(kept) - set(ort.tensorrt_options(128, 16)) == {
        "trt_engine_cache_enable",
        "trt_engine_cache_path",
    }
