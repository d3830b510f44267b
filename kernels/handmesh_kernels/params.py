"""`src/params.h` for NumPy: the struct that kernels take, and the widths they are built for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .constants import HeadConstants, Storage

__all__ = ["GATHER", "HEAD_PARAMS", "SHARED_BYTES", "WIDEST", "Shape"]

# Shared memory that a block may have on every device, and most channels: the threads of a block are
# divided among them.
SHARED_BYTES, WIDEST = 48 * 1024, 512

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
            "HM_TENSOR_CORES": int(self.tensor_cores),
        }
        return [f"-D{name}={value}" for name, value in values.items()]

    @property
    def tensor_cores(self) -> bool:
        """Whether the widths are those that 16 x 16 tiles take, and these fit shared memory."""
        tiled = all(width % 16 == 0 for width in self.widths)
        return tiled and max(self.tensor_bytes().values()) <= SHARED_BYTES

    def scalar_bytes(self) -> dict[str, int]:
        """Shared memory of a block, by kernel, as `src/decoder.cu` declares it."""
        first = self.widths[0]
        found = {}
        for s in (1, 4, 8):
            splits = 1024 // first * min(s, 4) // s
            found[f"hm_expand_{s}"] = _shared(max(self.latent, splits * first) * s, first * s)
        for i, width in enumerate(self.widths[1:], start=1):
            found |= {f"hm_conv{i}_{rows}": _shared(rows * (width + 4)) for rows in (8, 32)}
        for s in (1, 2):
            found[f"hm_finish_{s}"] = _shared(s * 3 * self.vertices, s * 42, s)
        return found

    def tensor_bytes(self) -> dict[str, int]:
        """The same of `src/tensor.h`; half a float is a half."""
        c0, c1, c2, c3 = self.widths
        splits = max(1, 8 // max(1, c0 // 16))
        wide = max(splits * c0, self.order * c1)
        return {
            "hm_expand_tensor": _shared(8 * (self.latent + 8), 16 * wide, 8 * (c0 + 8)),
            "hm_conv1_tensor": _shared(16 * (c1 + 8), 32 * self.order * c2),
            "hm_conv2_tensor": _shared(16 * (c2 + 8), 32 * self.order * c3),
        }

    def refused(self) -> str:
        """Why no device runs kernels of this shape; "" where they can be."""
        if max(self.widths) > WIDEST:
            return (
                f"the graph head has layers of {max(self.widths)} channels (filled up to a power "
                f"of two), and the kernels take {WIDEST}"
            )
        name, size = max(self.scalar_bytes().items(), key=lambda item: item[1])
        if size <= SHARED_BYTES:
            return ""
        return (
            f"kernel {name} would take {size:,} bytes of shared memory, and a block may have "
            f"{SHARED_BYTES:,}: the graph head is too large for the kernels (latent "
            f"{self.latent}, widths {', '.join(map(str, self.widths))}, {self.vertices} vertices)"
        )

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


def _shared(*floats: int) -> int:
    """Bytes of arrays that are each aligned to 32."""
    return sum(-(-4 * count // 32) * 32 for count in floats)


def _power(width: int) -> int:
    """The next power of two, at least 8: a block's threads divide evenly among the channels."""
    return max(8, 1 << (width - 1).bit_length())
