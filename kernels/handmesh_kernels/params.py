"""`src/params.h` for NumPy: the struct that kernels take, and the widths they are built for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .constants import HeadConstants, Storage

__all__ = ["GATHER", "HEAD_PARAMS", "Shape"]

_POINTER, _INT = "<u8", "<i4"

GATHER = np.dtype(
    [("entries", _POINTER), ("lengths", _POINTER), ("bias", _POINTER)]
    + [(name, _INT) for name in ("rows", "width", "inputs", "unused")]
)

HEAD_PARAMS = np.dtype(
    [
        (name, _POINTER)
        for name in (
            *("latent", "joints_uv", "expand_weight", "expand_bias"),
            *("theta1", "theta2", "theta3", "theta4", "maps1", "maps2", "maps3", "maps4"),
        )
    ]
    + [(f"conv{i}", GATHER) for i in range(1, 5)]
    + [(n, _POINTER) for n in ("blend", "pose_weight", "pose_bias", "vertices", "joints")]
    + [(n, _INT) for n in ("batch", "given", "features", "nodes", "points", "unused")]
)


@dataclass(frozen=True)
class Shape:
    """What is fixed when the kernels are compiled.

    Attributes:
        order: K. widths: C0 to C3, filled up to powers of two.
        latent: most latent features. vertices: most vertices.
    """

    order: int = 3
    widths: tuple[int, ...] = (64, 64, 32, 32)
    latent: int = 512
    vertices: int = 1280

    def defines(self, storage: Storage) -> list[str]:
        """Options of a compiler."""
        values = {
            "HM_HALF": int(storage == "fp16"),
            "HM_ORDER": self.order,
            **{f"HM_WIDTH{i}": width for i, width in enumerate(self.widths)},
            "HM_LATENT": self.latent,
            "HM_VERTICES": self.vertices,
        }
        return [f"-D{name}={value}" for name, value in values.items()]

    @property
    def tensor_cores(self) -> bool:
        """Whether the widths are those that 16 x 16 tiles take."""
        return all(width % 16 == 0 for width in self.widths)

    @classmethod
    def of(cls, constants: HeadConstants) -> Shape:
        """That of a head: the default one, which compiled kernels are shipped for, if it fits."""
        own = cls(
            constants.order,
            tuple(_power(width) for width in constants.widths),
            -(-constants.features // 16) * 16,
            -(-constants.vertex_count // 4) * 4,
        )
        usual = cls()
        same = (own.order, own.widths) == (usual.order, usual.widths)
        fits = own.latent <= usual.latent and own.vertices <= usual.vertices
        return usual if same and fits else own


def _power(width: int) -> int:
    """The next power of two, at least 8: a block's threads divide evenly among the channels."""
    return max(8, 1 << (width - 1).bit_length())
