"""What all tests share: markers that skip where the hardware is missing, and the example photos."""

from __future__ import annotations

import ctypes.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def _has_cuda_driver() -> bool:
    return ctypes.util.find_library("cuda") is not None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
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
