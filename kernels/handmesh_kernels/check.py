"""Check the kernels on the device at hand: `python -m handmesh_kernels.check HEAD.npz ...`.

Every array that a kernel writes is compared with the head in NumPy, float64, relative to its
largest value: 1e-5 is allowed where numbers are float32, 5e-3 where they are stored in half. Run
under compute-sanitizer it also shows what reads or writes outside its memory, and what races.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import twin
from .bindings import NAMES, Binding, open_binding
from .constants import JOINTS, HeadConstants
from .errors import ConstantsError, KernelError
from .launcher import GraphHead

__all__ = ["ARRAYS", "TOLERANCE", "Checked", "check", "main"]

ARRAYS = ("maps1", "maps2", "maps3", "maps4", "vertices", "joints")
# Weights that are rounded to half, and nothing else, change the shipped head by up to 3.5e-3.
TOLERANCE = {"fp32": 1e-5, "fp16": 5e-3}


@dataclass(frozen=True)
class Checked:
    """One batch of one head.

    Attributes:
        storage, tensor_cores, batch: what ran.
        errors: of each of `ARRAYS`, relative to its largest value; infinite where not finite.
        same_twice: whether a second run gave the same bits.
    """

    storage: str
    tensor_cores: bool
    batch: int
    errors: tuple[float, ...]
    same_twice: bool

    @property
    def passed(self) -> bool:
        return self.same_twice and all(e < TOLERANCE[self.storage] for e in self.errors)

    def render(self) -> str:
        """One line for a reader."""
        cells = "  ".join(f"{n} {e:.1e}" for n, e in zip(ARRAYS, self.errors, strict=True))
        cores = "tensor cores" if self.tensor_cores else "scalar"
        verdict = "ok" if self.passed else "FAILED" if self.same_twice else "FAILED: varies"
        return f"{self.storage} {cores:12} batch {self.batch:3}  {cells}  {verdict}"


def check(
    constants: HeadConstants,
    batches: Sequence[int],
    binding: Binding,
    code: bytes | None = None,
    exact: HeadConstants | None = None,
) -> Iterator[Checked]:
    """Run a head and compare.

    Args:
        constants: of the head. batches: sizes. binding: the device.
        code: of the kernels, see `GraphHead`.
        exact: the head before it was rounded to half, to compare with; None, the head itself.

    Raises:
        KernelError: the head cannot run there.
    """
    wanted_of = constants if exact is None else exact
    usual = GraphHead(constants, max(batches), binding, code=code)
    heads = [usual]
    if usual.tensor_cores:
        heads.append(GraphHead(constants, max(batches), binding, tensor_cores=False, code=code))
    for head in heads:
        for batch in batches:
            rng = np.random.default_rng(batch)
            latent = rng.normal(size=(batch, constants.features)).astype(np.float32)
            uv = None
            if constants.blend is not None:
                uv = rng.random((batch, JOINTS, 2), dtype=np.float32)
            first, second = (_everything(head, latent, uv) for _ in range(2))
            output = twin.run(wanted_of, latent, uv)
            wanted = [*output.layers, output.vertices, output.joints]
            yield Checked(
                constants.storage,
                head.tensor_cores,
                batch,
                tuple(_error(a, b) for a, b in zip(first, wanted, strict=True)),
                all(np.array_equal(a, b) for a, b in zip(first, second, strict=True)),
            )


def _everything(
    head: GraphHead, latent: NDArray[np.float32], uv: NDArray[np.float32] | None
) -> list[NDArray[np.float64]]:
    """What a run writes; beforehand one on other inputs, so that what is not written shows."""
    head.run(latent + np.float32(1), uv)
    vertices, joints = head.run(latent, uv)
    results = [head.fetch(vertices), head.fetch(joints)]
    maps = head.fetch_maps(len(latent))
    maps[3] = maps[3][..., :3]  # the fourth channel fills up
    return [array.astype(np.float64) for array in (*maps, *results)]


def _error(found: NDArray[np.float64], wanted: NDArray[np.float64]) -> float:
    difference = float(np.abs(found - wanted[..., : found.shape[-1]]).max())
    return difference / float(np.abs(wanted).max()) if np.isfinite(difference) else float("inf")


def _batches(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ConstantsError(f"--batches takes numbers of samples, as 1,3,8; not {text!r}")
    return [int(part) for part in parts]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m handmesh_kernels.check", description=__doc__.splitlines()[0]
    )
    parser.add_argument("heads", nargs="+", metavar="HEAD.npz")
    parser.add_argument("--exact", metavar="HEAD.npz", help="that the others were rounded from")
    parser.add_argument("--batches", default="1,3,8,64", metavar="A,B")
    parser.add_argument("--binding", choices=NAMES)
    options = parser.parse_args(arguments)
    try:
        batches = _batches(options.batches)
        binding = open_binding(options.binding)
        print(binding.description)
        exact = HeadConstants.load(options.exact) if options.exact else None
        failed = 0
        for path in options.heads:
            for checked in check(HeadConstants.load(path), batches, binding, exact=exact):
                print(checked.render(), flush=True)
                failed += not checked.passed
    except KernelError as error:
        print(f"handmesh_kernels: {error}", file=sys.stderr)
        return 2
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
