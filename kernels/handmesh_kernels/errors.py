"""What this package raises on purpose.

KernelError
├── NoDevice       no GPU, no driver, or no package to reach it with
├── CompileError   the sources did not compile, or to something that may not be used
└── ConstantsError (also ValueError)  arrays that do not fit the head or each other
"""

from __future__ import annotations

__all__ = ["CompileError", "ConstantsError", "KernelError", "NoDevice"]


class KernelError(Exception):
    """Base of every error that handmesh_kernels raises on purpose."""


class NoDevice(KernelError):
    """There is no GPU to run on, or neither PyCUDA nor CuPy to reach it with."""


class CompileError(KernelError):
    """The compiler is missing, refused the sources, or made what may not be used of them."""


class ConstantsError(KernelError, ValueError):
    """An array is missing, or of another shape or type than the head needs."""
