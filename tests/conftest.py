"""What all tests share: markers that skip where the hardware is missing, and the example photos."""

from __future__ import annotations

import ctypes.util
import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Before anything imports torch. Threads of OpenMP wait by spinning, and where test processes share
# the cores, what they wait for does not get one: `handmesh verify` takes three times as much time.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Some tests import ONNX Runtime before `handmesh.ort`, which tells it not to report to its maker.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


# Files that take long, the longest first: begun last, one of them would keep a single process busy
# at the end. The Makefile tells pytest-xdist to keep this order.
LONG = (
    "test_interruption.py",
    "test_tflite.py",
    "test_same_hand.py",
    "test_smoke.py",
    "test_experiments.py",
    "test_coreml.py",
    "test_train.py",
    "test_stages.py",
    "test_onnx.py",
    "test_importer.py",
    "test_importer_graph.py",
    "test_registered.py",
    "test_sanitizers.py",
    "test_stream.py",
    "test_device_stream.py",
    "test_shards.py",
    "test_decoder.py",
)


def _has_cuda_driver() -> bool:
    return ctypes.util.find_library("cuda") is not None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collecting imports torch, JAX, coremltools and all tests: a million objects that stay.

    Python's collector of garbage would look at all of them again and again, and for as long as the
    tests run: without this a third of the time of what makes many objects, as converters do.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(item.path.name, len(LONG)))
    reasons = {}
    if not _has_cuda_driver():
        reasons["cuda"] = "needs an NVIDIA GPU and its driver"
    if sys.platform != "darwin":
        reasons["darwin"] = "needs macOS"
    for item in items:
        for marker, reason in reasons.items():
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def example_photos() -> dict[str, Path]:
    """The example photos by name: open, open_turned, pointing, hooked, fist."""
    return {path.stem: path for path in sorted((ROOT / "examples" / "photos").glob("*.jpg"))}
