"""NVRTC through ctypes: the compiler that comes with CUDA, PyTorch, CuPy's wheels or its own wheel.

It needs neither a GPU nor a driver.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import os
import re
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from .errors import CompileError

__all__ = ["Compiler", "load"]

_OK = 0


class Compiler:
    """One NVRTC library.

    Attributes:
        path: of the library. version: (major, minor), as (12, 6).
    """

    def __init__(self, path: str) -> None:
        self.path = path
        # Its own part is looked for on the system's path only, but found where it is already open.
        for part in sorted(Path(path).parent.glob("libnvrtc-builtins.so*")):
            if "alt" not in part.name:
                ctypes.CDLL(str(part))
        self._library = ctypes.CDLL(path)
        self._library.nvrtcGetErrorString.restype = ctypes.c_char_p
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._check(self._library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
        self.version = (major.value, minor.value)

    @property
    def name(self) -> str:
        """As "NVRTC 12.6"."""
        return f"NVRTC {self.version[0]}.{self.version[1]}"

    @property
    def makes_cubin(self) -> bool:
        """Whether it makes machine code; before CUDA 11.1 it makes PTX only."""
        return hasattr(self._library, "nvrtcGetCUBIN")

    def architectures(self) -> list[int]:
        """Those it compiles for, as 87; empty where it is too old to tell."""
        if not hasattr(self._library, "nvrtcGetNumSupportedArchs"):
            return []
        count = ctypes.c_int()
        self._check(self._library.nvrtcGetNumSupportedArchs(ctypes.byref(count)))
        found = (ctypes.c_int * count.value)()
        self._check(self._library.nvrtcGetSupportedArchs(found))
        return list(found)

    def compile(
        self,
        name: str,
        source: str,
        headers: Mapping[str, str],
        options: Sequence[str],
        cubin: bool,
    ) -> tuple[bytes, str]:
        """Compile one source.

        Args:
            name, source: of the program. headers: by the names that it includes them by.
            options: of the compiler, the architecture among them. cubin: machine code, not PTX.

        Returns:
            The code and the compiler's log.

        Raises:
            CompileError: it did not compile.
        """
        lib, program = self._library, ctypes.c_void_p()
        count = len(headers)
        texts = (ctypes.c_char_p * count)(*(text.encode() for text in headers.values()))
        names = (ctypes.c_char_p * count)(*(header.encode() for header in headers))
        self._check(
            lib.nvrtcCreateProgram(
                ctypes.byref(program), source.encode(), name.encode(), count, texts, names
            )
        )
        try:
            given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
            status = lib.nvrtcCompileProgram(program, len(options), given)
            log = self._bytes(program, "nvrtcGetProgramLog").decode(errors="replace").strip("\0\n ")
            if status != _OK:
                reason = lib.nvrtcGetErrorString(status).decode()
                raise CompileError(f"{self.name} did not compile {name}: {reason}\n{log}")
            code = self._bytes(program, "nvrtcGetCUBIN" if cubin else "nvrtcGetPTX")
        finally:
            lib.nvrtcDestroyProgram(ctypes.byref(program))
        return code, log

    def _bytes(self, program: ctypes.c_void_p, getter: str) -> bytes:
        size = ctypes.c_size_t()
        self._check(getattr(self._library, getter + "Size")(program, ctypes.byref(size)))
        buffer = ctypes.create_string_buffer(size.value)
        self._check(getattr(self._library, getter)(program, buffer))
        return buffer.raw

    def _check(self, status: int) -> None:
        if status != _OK:
            reason = self._library.nvrtcGetErrorString(status).decode()
            raise CompileError(f"NVRTC ({self.path}) failed: {reason}")


@functools.cache
def load() -> Compiler:
    """The first NVRTC that opens: $HANDMESH_NVRTC, wheels, $CUDA_HOME, the system's.

    Raises:
        CompileError: there is none.
    """
    tried = []
    for candidate in _candidates():
        try:
            return Compiler(candidate)
        except (OSError, AttributeError, CompileError) as cause:
            tried.append(f"{candidate} ({cause})")
    raise CompileError(
        "no NVRTC library opens; it comes with the CUDA toolkit, or: "
        f"pip install nvidia-cuda-nvrtc-cu12; or name it in HANDMESH_NVRTC. Tried: "
        f"{'; '.join(tried) or 'nothing, none was found'}"
    )


def _candidates() -> Iterator[str]:
    named = os.environ.get("HANDMESH_NVRTC")
    if named:  # and no other: whoever names one means it
        yield named
        return
    pattern = "nvrtc64_*.dll" if sys.platform == "win32" else "libnvrtc.so*"
    # pip install nvidia-cuda-nvrtc-cu12, or what torch brings; a system's Python and a user's own
    # packages lie elsewhere than sysconfig says.
    sites = [sysconfig.get_path("purelib"), *sys.path]
    folders = [Path(site) / "nvidia" for site in dict.fromkeys(filter(None, sites))]
    folders += [Path(os.environ[name]) for name in ("CUDA_HOME", "CUDA_PATH") if name in os.environ]
    folders.append(Path("/usr/local/cuda"))
    for folder in folders:
        for inside in ("cuda_nvrtc/lib", "cu*/lib", "lib64", "lib", "bin", "targets/*/lib"):
            found = [path for path in folder.glob(f"{inside}/{pattern}") if "alt" not in path.name]
            yield from map(str, sorted(found, key=_version, reverse=True))
    system = ctypes.util.find_library("nvrtc")
    if system:
        yield system


def _version(path: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", path.name)]
