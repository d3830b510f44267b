"""Machine code for the device at hand: compiled before, or compiled now and kept.

Order: the folder in HANDMESH_KERNELS, made by `python -m handmesh_kernels.compile` from these very
sources, and unchanged; the cache; NVRTC, whose result goes into the cache. What the cache is asked
for names the sources, the options and the compiler, so a change of any of them is another file.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path

from . import compile as compiling
from . import nvrtc, sources
from .constants import Storage
from .errors import CompileError
from .params import Shape

__all__ = ["folder", "kernel_code"]


def folder() -> Path:
    """$XDG_CACHE_HOME/handmesh/kernels or ~/.cache/handmesh/kernels."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "handmesh" / "kernels"


def kernel_code(
    architecture: int, storage: Storage, shape: Shape, program: str = "decoder.cu"
) -> bytes:
    """Machine code, or PTX from compilers that make nothing else.

    Raises:
        CompileError: it is nowhere, and cannot be compiled.
    """
    ready = os.environ.get("HANDMESH_KERNELS")
    if ready and program == "decoder.cu":
        return _shipped(Path(ready), architecture, storage, shape)
    compiler = nvrtc.load()
    key = hashlib.sha256(
        json.dumps(
            [sources.sha256(), program, architecture, storage, asdict(shape), compiler.name]
        ).encode()
    ).hexdigest()
    kept = folder() / f"{key}.bin"
    if kept.is_file():
        return kept.read_bytes()
    code = compiling.build(compiler, architecture, storage, shape, program).code
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        compiling.write_whole(kept, code)
    except OSError:
        pass  # a home that cannot be written to costs a compilation each time, no more
    return code


def _shipped(where: Path, architecture: int, storage: Storage, shape: Shape) -> bytes:
    remedy = (
        f"make it again with `python -m handmesh_kernels.compile --arch {architecture} "
        f"--out {where}`, or unset HANDMESH_KERNELS"
    )
    try:
        index = compiling.index_of(where)
    except (OSError, ValueError) as cause:
        raise CompileError(f"HANDMESH_KERNELS: cannot read {where}: {cause}; {remedy}") from cause
    if index.get("sources_sha256") != sources.sha256():
        raise CompileError(f"{where} was compiled from other sources; {remedy}")
    if index["shape"] != compiling.shape_facts(shape):
        raise CompileError(
            f"{where} was compiled for a head of {index['shape']}, this one is {asdict(shape)}: "
            "unset HANDMESH_KERNELS, so that its kernels are compiled here"
        )
    # PTX is all that compilers before CUDA 11.1 make; the driver compiles it.
    paths = [where / f"handmesh_sm{architecture}_{storage}.{kind}" for kind in ("cubin", "ptx")]
    path = next((each for each in paths if each.is_file()), None)
    if path is None:
        raise CompileError(f"there is no {paths[0]}, and no .ptx; {remedy}")
    code = path.read_bytes()
    listed = index["files"].get(path.name)
    if listed is None or hashlib.sha256(code).hexdigest() != listed["sha256"]:
        raise CompileError(
            f"{path} is not the file that {compiling.INDEX} beside it lists, so that nothing says "
            f"what it was compiled from; {remedy}"
        )
    return code
