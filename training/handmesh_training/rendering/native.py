"""Compiles the C++ of this folder on first use and loads it.

The library lands in the user's cache folder under a name made of everything that decides its
contents: sources, compiler, flags and processor. It is written to a temporary name first, so that
several processes starting at once cannot load a half-written file.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from handmesh.errors import BackendError, BackendUnavailable

STAGES = (
    "stages.cpp",
    "shade.cpp",
    "ground.cpp",
    "solids.cpp",
    "pattern.cpp",
    "scene.cpp",
    "raster.cpp",
)
SOURCES = ("host.cpp", *STAGES)

# The parts of -ffast-math that are wanted. The flag itself would, with GCC before 13, switch the
# whole process to flushing denormals as soon as the library is loaded.
FLAGS = (
    "-std=c++14",
    "-O3",
    "-march=native",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fno-signed-zeros",
    "-ffinite-math-only",
    "-fassociative-math",
    "-freciprocal-math",
    "-fPIC",
    "-shared",
    "-pthread",
)


class Mesh(ctypes.Structure):
    """Mirrors HmMesh."""

    _fields_ = [
        *(
            (name, ctypes.c_void_p)
            for name in ("faces", "uv", "parts", "arm", "fan_start", "fan", "hand")
        ),
        *((name, ctypes.c_int32) for name in ("vertex_count", "face_count", "own_vertices")),
    ]


class Textures(ctypes.Structure):
    """Mirrors HmTextures."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("texels", "offset", "extent")),
        *((name, ctypes.c_int32) for name in ("count", "levels")),
    ]


class Batch(ctypes.Structure):
    """Mirrors HmBatch: vertices, camera, then the fields of Appearance in their order."""

    _fields_ = [
        *(
            (name, ctypes.c_void_p)
            for name in (
                "vertices",
                "camera",
                "skin",
                "skin_gain",
                "skin_contrast",
                "irradiance",
                "key_direction",
                "key_light",
                "gloss",
                "relief",
                "occlusion",
                "sleeve",
                "solids",
                "ground",
                "ground_texture",
                "background",
                "background_map",
                "background_blur",
                "background_gain",
                "exposure",
                "tone",
                "is_panorama",
            )
        ),
        *((name, ctypes.c_int32) for name in ("count", "size", "shadow_size")),
    ]


class Output(ctypes.Structure):
    """Mirrors HmOutput."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("image", "mask", "depth", "parts", "normals")]


def find_compiler() -> str:
    """Path of the C++ compiler: the variable CXX, else c++, g++ or clang++.

    Raises:
        BackendUnavailable: no compiler is installed.
    """
    for name in (os.environ.get("CXX", ""), "c++", "g++", "clang++"):
        path = shutil.which(name) if name else None
        if path:
            return path
    raise BackendUnavailable(
        "the renderer is compiled on first use and needs a C++14 compiler, but none of $CXX, "
        "c++, g++ and clang++ was found; install one (Debian and Ubuntu: `apt install g++`; "
        "macOS: `xcode-select --install`) or point CXX at it"
    )


def cache_folder() -> Path:
    """Where compiled libraries are kept: $XDG_CACHE_HOME/handmesh or ~/.cache/handmesh."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "handmesh"


def _processor() -> str:
    # -march=native: a cache on a shared disk must not serve one machine's code to another.
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return line
    except OSError:
        pass
    return platform.platform() + platform.processor()


def build(folder: Path | None = None) -> Path:
    """Compiles the library unless it is in the cache.

    Args:
        folder: where to keep it; ``cache_folder()`` by default.

    Returns:
        Path of the shared library.

    Raises:
        BackendUnavailable: no compiler is installed.
        BackendError: the compiler refused the source.
    """
    return compiled("renderer", find_compiler(), FLAGS, SOURCES, _processor(), folder)


def compiled(
    name: str,
    compiler: str,
    flags: Sequence[str],
    sources: Sequence[str],
    target: str = "",
    folder: Path | None = None,
) -> Path:
    """Path of a shared library of this folder's sources, compiled unless it is in the cache.

    Args:
        name: what its file's name begins with.
        compiler: path of a program that takes ``flags FILE -o LIBRARY`` and ``--version``.
        flags: for the compiler.
        sources: the file to compile, then those that it includes.
        target: what else decides the contents.
        folder: where to keep it; ``cache_folder()`` by default.

    Raises:
        BackendError: the compiler refused the source.
    """
    folder = cache_folder() if folder is None else folder
    here = Path(__file__).parent
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False)
    digest = hashlib.sha256()
    for part in (compiler, version.stdout, " ".join(flags), target):
        digest.update(part.encode() + b"\0")
    for source in sources:
        digest.update((here / source).read_bytes() + b"\0")
    library = folder / f"{name}-{digest.hexdigest()[:20]}.so"
    if library.exists():
        return library
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        made = Path(scratch) / library.name
        command = [compiler, *flags, str(here / sources[0]), "-o", str(made)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise BackendError(
                f"{compiler} could not compile the renderer (exit status {result.returncode}):\n"
                f"{(result.stderr or result.stdout)[-2000:]}"
            )
        os.replace(made, library)
    return library


def opened(path: Path) -> ctypes.CDLL:
    """The library at a path, after a check that this file mirrors its structs.

    Raises:
        BackendError: it does not load, or does not fit this file.
    """
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise BackendError(f"the compiled renderer {path} cannot be loaded: {error}") from error
    sizes = (ctypes.c_int32 * 4)()
    library.hm_struct_sizes(sizes)
    mirrored = [ctypes.sizeof(kind) for kind in (Mesh, Textures, Batch, Output)]
    if list(sizes) != mirrored:
        raise BackendError(
            f"native.py mirrors structs of {mirrored} bytes, the library has {list(sizes)}; "
            "bring native.py and raster.cpp together"
        )
    return library


@functools.cache
def load() -> ctypes.CDLL:
    """The compiled library, built if need be. Its calls release the GIL.

    Raises:
        BackendUnavailable: no compiler is installed.
        BackendError: the library does not compile, load or fit this file.
    """
    library = opened(build())
    library.hm_render.restype = None
    library.hm_rasterise.restype = None
    library.hm_meet_solid.restype = None
    return library
