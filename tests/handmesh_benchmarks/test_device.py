"""What results say of a machine."""

from __future__ import annotations

import pytest

from handmesh_benchmarks import device


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("", {}),
        ("RTX A, 550\n", {"gpu": "RTX A, 550"}),
        ("RTX A, 550\nRTX B, 550\n", {"gpu": "0: RTX A, 550; 1: RTX B, 550"}),
    ],
)
def test_all_gpus_are_named(
    monkeypatch: pytest.MonkeyPatch, printed: str, expected: dict[str, str]
) -> None:
    monkeypatch.setattr(device, "_output", lambda *command: printed)
    assert device._gpu() == expected
