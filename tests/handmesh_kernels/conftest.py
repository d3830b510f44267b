"""Constants of heads on the real hand graph, and the kernels compiled for the CPU."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cuda_shim import ShimBinding, compiled
from numpy.typing import NDArray

from handmesh.bundle import Bundle
from handmesh_converters.export import load_bundle
from handmesh_converters.fold import FoldedHead, fold
from handmesh_converters.formats.cuda import head_arrays
from handmesh_converters.forms import form_named
from handmesh_kernels.constants import HeadConstants

Inputs = tuple[NDArray[np.float32], NDArray[np.float32]]


@pytest.fixture(scope="session")
def folded() -> FoldedHead:
    """The shipped head, in torch."""
    return fold(load_bundle(Bundle.load("light")), form_named("polynomials")).head


@pytest.fixture(scope="session")
def arrays(folded: FoldedHead) -> dict[str, NDArray[Any]]:
    """Its constants, fp32."""
    return head_arrays(folded, "fp32")


@pytest.fixture(scope="session")
def shipped(arrays: dict[str, NDArray[Any]]) -> HeadConstants:
    return HeadConstants.from_arrays(arrays)


@pytest.fixture(scope="session")
def halved(folded: FoldedHead) -> HeadConstants:
    """The shipped head stored in half."""
    return HeadConstants.from_arrays(head_arrays(folded, "fp16"))


@pytest.fixture(scope="session")
def make_random(shipped: HeadConstants) -> Callable[[int], HeadConstants]:
    """A head with random weights on the same graph, by seed."""

    def make(seed: int) -> HeadConstants:
        rng = np.random.default_rng(seed)

        def like(array: NDArray[np.float32], fan_in: int) -> NDArray[np.float32]:
            return (rng.normal(size=array.shape) / np.sqrt(fan_in)).astype(np.float32)

        pose = like(shipped.pose_weight, shipped.pose_weight.shape[1])
        pose_bias = like(shipped.pose_bias, 4)
        pose[-3:-1], pose_bias[-3:-1] = 0.0, 0.0  # only a depth is subtracted from vertices
        return replace(
            shipped,
            expand_weight=like(shipped.expand_weight, shipped.features),
            expand_bias=like(shipped.expand_bias, 4),
            convolutions=tuple(
                replace(c, theta=like(c.theta, c.theta.shape[1]), bias=like(c.bias, 4))
                for c in shipped.convolutions
            ),
            pose_weight=pose,
            pose_bias=pose_bias,
        )

    return make


@pytest.fixture(scope="session")
def make_inputs(shipped: HeadConstants) -> Callable[..., Inputs]:
    """(batch, seed=0) -> latent (B, F), joints_uv (B, 21, 2)."""

    def make(batch: int, seed: int = 0) -> Inputs:
        rng = np.random.default_rng([batch, seed])
        latent = rng.normal(size=(batch, shipped.features)).astype(np.float32)
        return latent, rng.random((batch, 21, 2), dtype=np.float32)

    return make


@pytest.fixture(scope="session")
def heads(
    tmp_path_factory: pytest.TempPathFactory, arrays: dict[str, NDArray[Any]]
) -> dict[str, Path]:
    """The shipped head's constants, by storage."""
    folder = tmp_path_factory.mktemp("heads")
    large = ("expand_weight", "pose_weight", *(f"conv{i}_theta" for i in range(1, 5)))
    half = {name: a.astype(np.float16) if name in large else a for name, a in arrays.items()}
    np.savez(folder / "fp32.npz", **arrays)  # type: ignore[arg-type]
    np.savez(folder / "fp16.npz", **half)  # type: ignore[arg-type]
    return {storage: folder / f"{storage}.npz" for storage in ("fp32", "fp16")}


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By storage."""
    if shutil.which("g++") is None:
        pytest.skip("no g++ to compile the kernels for the CPU with")
    folder = tmp_path_factory.mktemp("shim")
    return {storage: compiled(folder, storage) for storage in ("fp32", "fp16")}


@pytest.fixture
def shim(libraries: dict[str, Path]) -> Callable[[HeadConstants], ShimBinding]:
    """A "device" for a head."""
    return lambda constants: ShimBinding(libraries[constants.storage])


@pytest.fixture(scope="session", autouse=True)
def _few_threads() -> None:
    torch.set_num_threads(1)
