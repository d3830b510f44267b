"""What a run tells while it runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from handmesh.errors import CheckpointError
from handmesh_training.monitor import Monitor


def test_a_log_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    monitor = Monitor(tmp_path, tensorboard=False)
    monitor.scalars({"step": 1, "loss": 0.5})
    log = tmp_path / "log.jsonl"
    assert json.loads(log.read_text()) == {"step": 1, "loss": 0.5}
    log.unlink()
    log.mkdir()
    with pytest.raises(CheckpointError, match=r"cannot write .*log\.jsonl .*make room"):
        monitor.scalars({"step": 2, "loss": 0.5})
