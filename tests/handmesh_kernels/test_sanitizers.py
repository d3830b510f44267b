"""No kernel reads or writes outside its arrays, in device memory or in shared memory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cuda_shim import BACKWARDS, FORWARDS, SANITIZERS, compiled

from handmesh_kernels import sources

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def _runtimes() -> str:
    """The sanitizers' libraries: Python itself was not built with them."""
    found = []
    for name in ("libasan.so", "libubsan.so"):
        command = ["g++", f"-print-file-name={name}"]
        path = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        if not Path(path).is_absolute():
            pytest.skip(f"this compiler has no {name}")
        found.append(path)
    return ":".join(found)


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    if shutil.which("g++") is None:
        pytest.skip("no g++")
    folder = tmp_path_factory.mktemp("sanitized")
    return {s: compiled(folder, s, None, *SANITIZERS) for s in ("fp32", "fp16")}


def _run(library: Path, head: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    paths = [ROOT / "kernels", ROOT / "tests" / "helpers"]
    environment = {
        **os.environ,
        "LD_PRELOAD": _runtimes(),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python's own
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
    }
    script = Path(__file__).with_name("sanitized.py")
    command = [sys.executable, str(script), str(library), str(head), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.parametrize(
    ("storage", "batch", "order", "tensor_cores"),
    [
        ("fp32", 1, FORWARDS, False),
        ("fp32", 3, BACKWARDS, False),
        ("fp32", 9, FORWARDS, False),
        ("fp16", 1, BACKWARDS, False),
        ("fp16", 17, FORWARDS, True),
    ],
)
def test_the_sanitizers_find_nothing(
    sanitized: dict[str, Path],
    heads: dict[str, Path],
    storage: str,
    batch: int,
    order: int,
    tensor_cores: bool,
) -> None:
    done = _run(sanitized[storage], heads[storage], batch, order, tensor_cores)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.strip() == "clean"


@pytest.mark.parametrize(
    ("file", "line", "planted"),
    [
        # One vertex too many, in memory of the device.
        (
            "decoder.cu",
            "const int count = 3 * g.rows;",
            "const int count = 3 * g.rows + 3;",
        ),
        # A row of shared memory too few.
        (
            "decoder.cu",
            "HM_SHARED(float, x, ROWS * STRIDE);",
            "HM_SHARED(float, x, (ROWS - 1) * STRIDE);",
        ),
    ],
)
def test_the_sanitizers_see(
    heads: dict[str, Path], tmp_path: Path, file: str, line: str, planted: str
) -> None:
    folder = tmp_path / "src"
    shutil.copytree(sources.FOLDER, folder)
    text = (folder / file).read_text()
    assert text.count(line) == 1
    (folder / file).write_text(text.replace(line, planted))
    library = compiled(tmp_path, "fp32", None, f"-I{folder}", *SANITIZERS)
    done = _run(library, heads["fp32"], 1, FORWARDS, False)
    assert done.returncode != 0
    assert "AddressSanitizer: heap-buffer-overflow" in done.stderr
