"""PyCUDA itself, on a stand-in for the driver that runs the kernels on the CPU: see
`shim/driver.cpp`. Skipped where PyCUDA is not installed."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with libcuda.so.1: what `driver.cpp` has, and refusals for the rest."""
    spec = importlib.util.find_spec("pycuda")
    if spec is None or spec.origin is None:
        pytest.skip("PyCUDA is not installed")
    (extension,) = Path(spec.origin).parent.glob("_driver*.so")
    asked = subprocess.run(
        ["nm", "-D", "--undefined-only", str(extension)], capture_output=True, text=True, check=True
    ).stdout
    source = (HERE / "shim" / "driver.cpp").read_text()
    missing = set(re.findall(r" (cu[A-Z]\w+)", asked)) - set(re.findall(r"int (cu\w+)\(", source))
    folder = tmp_path_factory.mktemp("driver")
    refusals = [f'extern "C" int {name}() {{ return 801; }}\n' for name in sorted(missing)]
    (folder / "driver.cpp").write_text(source + "".join(refusals))
    subprocess.run(
        ["g++", "-std=c++14", "-O1", "-fPIC", "-shared", "-Wl,-soname,libcuda.so.1"]
        + [str(folder / "driver.cpp"), "-o", str(folder / "libcuda.so.1"), "-ldl"],
        check=True,
    )
    return folder


def _python(driver: Path, library: Path, program: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={
            **os.environ,
            "LD_LIBRARY_PATH": str(driver),
            "HM_KERNELS": str(library),
            "PYTHONPATH": os.pathsep.join([str(ROOT / "kernels"), *sys.path]),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "PyCUDA WARNING" not in done.stderr, done.stderr
    return done.stdout


CHECK = """
import sys
from handmesh_kernels.bindings import open_binding
from handmesh_kernels.check import check
from handmesh_kernels.constants import HeadConstants
binding = open_binding("pycuda")
print(binding.description)
constants, exact = map(HeadConstants.load, sys.argv[1:])
for checked in check(constants, [1, 3, 17], binding, code=b"code", exact=exact):
    print(checked.render())
    assert checked.passed
"""

THREADS = """
import sys, threading, numpy as np
from handmesh_kernels import twin
from handmesh_kernels.constants import HeadConstants
from handmesh_kernels.errors import KernelError
from handmesh_kernels.launcher import GraphHead
constants = HeadConstants.load(sys.argv[1])
latent = np.ones((2, constants.features), np.float32)
uv = np.ones((2, 21, 2), np.float32)
wanted = twin.run(constants, latent, uv).vertices
kept = {"head": GraphHead(constants, 2, "pycuda", code=b"code")}

def work():
    vertices, _ = kept["head"].run(latent, uv)
    latent[:] = np.nan  # inputs are the caller's again
    uv[:] = np.nan
    kept["found"] = kept["head"].fetch(vertices)
    del kept["head"], vertices  # freed by another thread than it was made by

thread = threading.Thread(target=work)
thread.start()
thread.join()
assert np.abs(kept["found"] - wanted).max() < 1e-4
print("done")
"""


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["fp32", "fp16"])
def test_every_kernel_through_pycuda(
    driver: Path,
    libraries: dict[str, Path],
    heads: dict[str, Path],
    storage: str,
) -> None:
    said = _python(driver, libraries[storage], CHECK, heads[storage], heads["fp32"])
    assert "CPU, sm_90, PyCUDA" in said
    assert said.count(" ok\n") == (6 if storage == "fp16" else 3)


def test_another_thread_runs_and_frees(
    driver: Path, libraries: dict[str, Path], heads: dict[str, Path]
) -> None:
    assert _python(driver, libraries["fp32"], THREADS, heads["fp32"]) == "done\n"


def test_without_a_device(driver: Path, tmp_path: Path) -> None:
    """A driver that finds none, and no driver."""
    program = """
from handmesh_kernels.bindings import open_binding
from handmesh_kernels.errors import NoDevice
try:
    open_binding("pycuda")
except NoDevice as error:
    print(error)
"""
    (tmp_path / "nothing").mkdir()
    assert "PyCUDA finds no GPU 0" in _python(driver, Path(), program)
    assert "no NVIDIA driver here" in _python(tmp_path / "nothing", Path(), program)
