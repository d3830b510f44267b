"""Compiles device.cu on first use and loads it: `native` for NVIDIA GPUs.

The sources are those of the CPU; the compiler is NVIDIA's, for the one architecture that is there.
Nothing but ctypes stands between Python and the launches.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import sysconfig
from pathlib import Path

from handmesh.errors import BackendUnavailable
from handmesh_training.rendering import native

SOURCES = ("device.cu", *native.STAGES)
FLAGS = ("-std=c++14", "-O3", "-Xcompiler", "-fPIC", "-shared")


def find_compiler() -> str:
    """Path of nvcc: the variable NVCC, else CUDA_HOME or CUDA_PATH, PATH, /usr/local/cuda, wheels.

    Raises:
        BackendUnavailable: it is in none of these places.
    """
    wheels = Path(sysconfig.get_path("purelib")) / "nvidia"  # pip install nvidia-cuda-nvcc
    candidates = [
        os.environ.get("NVCC", ""),
        *(
            f"{os.environ[name]}/bin/nvcc"
            for name in ("CUDA_HOME", "CUDA_PATH")
            if name in os.environ
        ),
        "nvcc",
        "/usr/local/cuda/bin/nvcc",
        *(str(path) for path in sorted(wheels.glob("cu*/bin/nvcc"), reverse=True)),
    ]
    for name in candidates:
        path = shutil.which(name) if name else None
        if path:
            return path
    raise BackendUnavailable(
        "drawing on CUDA needs NVIDIA's compiler, compiled code being kept for the next time, but "
        "nvcc is neither in $NVCC, $CUDA_HOME/bin, PATH nor /usr/local/cuda/bin; install the CUDA "
        "toolkit or point NVCC at it"
    )


def build(architecture: str, folder: Path | None = None) -> Path:
    """Compiles the library for one architecture unless it is in the cache.

    Args:
        architecture: compute capability without its dot, such as "90".
        folder: where to keep it; ``native.cache_folder()`` by default.

    Raises:
        BackendUnavailable: no compiler is installed.
        BackendError: the compiler refused the source.
    """
    target = f"-gencode=arch=compute_{architecture},code=sm_{architecture}"
    flags = (*FLAGS, target)
    return native.compiled("renderer-cuda", find_compiler(), flags, SOURCES, folder=folder)


@functools.cache
def load(architecture: str) -> ctypes.CDLL:
    """The compiled library, built if need be.

    Raises:
        BackendUnavailable: no compiler is installed.
        BackendError: the library does not compile, load or fit `native`.
    """
    return declared(native.opened(build(architecture)))


def declared(library: ctypes.CDLL) -> ctypes.CDLL:
    """The library with the types of device.cu's functions."""
    library.hm_device_stride.restype = ctypes.c_int64
    library.hm_device_render.restype = ctypes.c_int32
    library.hm_device_error.restype = ctypes.c_char_p
    return library
