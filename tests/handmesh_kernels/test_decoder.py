"""The kernels of the head, run on the CPU thread by thread, against the head in float64.

Tolerances are relative to the largest value of an array: 1e-5 where numbers are float32, 5e-3 where
they are stored in half, of every array that lies between two kernels.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from cuda_shim import BACKWARDS, FORWARDS, ShimBinding, error
from numpy.typing import NDArray

from handmesh_converters.fold import FoldedHead
from handmesh_kernels import sources, twin
from handmesh_kernels.constants import HeadConstants
from handmesh_kernels.errors import KernelError
from handmesh_kernels.launcher import GraphHead

Inputs = tuple[NDArray[np.float32], NDArray[np.float32]]
MakeInputs = Callable[..., Inputs]
MakeRandom = Callable[[int], HeadConstants]
Shim = Callable[[HeadConstants], ShimBinding]
TOLERANCE = {"fp32": 1e-5, "fp16": 5e-3}


def launched(
    constants: HeadConstants,
    binding: ShimBinding,
    inputs: Inputs,
    tensor_cores: bool = False,
    order: int = FORWARDS,
) -> list[NDArray[np.float64]]:
    """Everything that the kernels write: maps1 to maps4, vertices, joints."""
    binding.order = order
    batch = len(inputs[0])
    head = GraphHead(constants, batch, binding, tensor_cores=tensor_cores, code=b"")
    vertices, joints = head.run(*inputs)
    maps = head.fetch_maps(batch)
    maps[3] = maps[3][..., :3]  # the fourth channel fills up
    return [a.astype(np.float64) for a in (*maps, head.fetch(vertices), head.fetch(joints))]


def expected(constants: HeadConstants, inputs: Inputs) -> list[NDArray[np.float64]]:
    output = twin.run(constants, *inputs)
    return [*output.layers, output.vertices, output.joints]


def worst(found: list[NDArray[np.float64]], wanted: list[NDArray[np.float64]]) -> float:
    errors = [error(a, b) for a, b in zip(found, wanted, strict=True)]
    return max(errors) if np.isfinite(errors).all() else np.inf


def test_twin_is_the_network_s_head(
    folded: FoldedHead, shipped: HeadConstants, make_inputs: MakeInputs
) -> None:
    latent, uv = make_inputs(5)
    with torch.no_grad():
        vertices, joints = folded(torch.from_numpy(latent), torch.from_numpy(uv))
    found = twin.run(shipped, latent, uv)
    np.testing.assert_allclose(found.vertices, vertices.numpy(), rtol=0, atol=3e-6)
    np.testing.assert_allclose(found.joints, joints.numpy(), rtol=0, atol=3e-6)
    assert np.abs(found.joints[:, 0, 2]).max() == 0, "the wrist's depth"


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_float32_of_the_shipped_head(
    shipped: HeadConstants, shim: Shim, make_inputs: MakeInputs, batch: int
) -> None:
    inputs = make_inputs(batch)
    found = launched(shipped, shim(shipped), inputs)
    assert worst(found, expected(shipped, inputs)) < TOLERANCE["fp32"]


@pytest.mark.parametrize(("batch", "tensor_cores"), [(1, False), (3, False), (8, True), (17, True)])
def test_half_of_the_shipped_head(
    shipped: HeadConstants,
    halved: HeadConstants,
    shim: Shim,
    make_inputs: MakeInputs,
    batch: int,
    tensor_cores: bool,
) -> None:
    """Against the head that was not rounded, and without tensor cores closely the rounded one."""
    inputs = make_inputs(batch)
    found = launched(halved, shim(halved), inputs, tensor_cores)
    assert worst(found, expected(shipped, inputs)) < TOLERANCE["fp16"]
    if not tensor_cores:
        rounded = twin.run(halved, *inputs, rounded=True)
        # A sum on the border between two halves may fall on either side.
        assert error(found[4], rounded.vertices) < 5e-4


@pytest.mark.slow
@pytest.mark.parametrize("seed", [None, 1])
@pytest.mark.parametrize("order", [FORWARDS, BACKWARDS])
def test_float32_of_a_large_batch(
    shipped: HeadConstants,
    make_random: MakeRandom,
    shim: Shim,
    make_inputs: MakeInputs,
    seed: int | None,
    order: int,
) -> None:
    constants, inputs = shipped if seed is None else make_random(seed), make_inputs(64)
    found = launched(constants, shim(constants), inputs, order=order)
    assert worst(found, expected(constants, inputs)) < TOLERANCE["fp32"]


@pytest.mark.slow
@pytest.mark.parametrize("tensor_cores", [False, True])
@pytest.mark.parametrize("order", [FORWARDS, BACKWARDS])
def test_half_of_a_large_batch(
    shipped: HeadConstants,
    halved: HeadConstants,
    shim: Shim,
    make_inputs: MakeInputs,
    tensor_cores: bool,
    order: int,
) -> None:
    inputs = make_inputs(64)
    found = launched(halved, shim(halved), inputs, tensor_cores, order)
    assert worst(found, expected(shipped, inputs)) < TOLERANCE["fp16"]


@pytest.mark.parametrize("seed", [0, 1])
def test_random_heads(
    make_random: MakeRandom, shim: Shim, make_inputs: MakeInputs, seed: int
) -> None:
    constants, inputs = make_random(seed), make_inputs(4, seed)
    found = launched(constants, shim(constants), inputs)
    assert worst(found, expected(constants, inputs)) < TOLERANCE["fp32"]


@pytest.mark.parametrize(("storage", "batch"), [("fp32", 2), ("fp32", 9), ("fp16", 16)])
def test_the_order_of_threads_does_not_matter(
    shipped: HeadConstants,
    halved: HeadConstants,
    shim: Shim,
    make_inputs: MakeInputs,
    storage: str,
    batch: int,
) -> None:
    constants, inputs = halved if storage == "fp16" else shipped, make_inputs(batch)
    first, second = (
        launched(constants, shim(constants), inputs, storage == "fp16", order)
        for order in (FORWARDS, BACKWARDS)
    )
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def barriers() -> list[tuple[str, int]]:
    """File and line of every barrier in the sources."""
    found = []
    for name in ("decoder.cu", *sources.headers()):
        for number, line in enumerate(sources.text(name).splitlines(), start=1):
            found += [(name, number)] * line.count("__syncthreads();")
    return found


def test_there_is_a_barrier_a_line() -> None:
    assert len(set(barriers())) == len(barriers()) == 14
    text = "".join(sources.text(name) for name in ("decoder.cu", *sources.headers()))
    assert len(re.findall(r"__sync\w+\(", text)) == 14, "no other kind of barrier"


@pytest.mark.parametrize(("file", "line"), barriers())
def test_no_barrier_can_be_left_out(
    shipped: HeadConstants,
    halved: HeadConstants,
    shim: Shim,
    make_inputs: MakeInputs,
    file: str,
    line: int,
) -> None:
    tensor = file == "tensor.h"
    constants, inputs = (halved, make_inputs(16)) if tensor else (shipped, make_inputs(2))
    wanted = expected(constants, inputs)
    tolerance = TOLERANCE[constants.storage]
    binding = shim(constants)
    try:
        binding.skip(file, line)
        caught = False
        for order in (FORWARDS, BACKWARDS):
            try:
                found = launched(constants, binding, inputs, tensor, order)
            except KernelError:  # threads met at different barriers
                caught = True
            else:
                caught = caught or not worst(found, wanted) < tolerance
            if caught:
                break
    finally:
        binding.skip()
    assert caught, "the same numbers without this barrier: the test is blind, or it is needless"
