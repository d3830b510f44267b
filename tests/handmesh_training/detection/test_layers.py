"""The rendered layers of a run of the detector: which are gone on with."""

from __future__ import annotations

from pathlib import Path

import pytest

from handmesh.errors import InputError
from handmesh_training.detection import layers
from handmesh_training.render_settings import RenderSettings


def test_layers_of_another_renderer_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = RenderSettings()
    for _ in range(2):
        layers.prepare(tmp_path, look, 0, 0, 0)
    with pytest.raises(InputError, match="holds layers made otherwise"):
        layers.prepare(tmp_path, look, 1, 0, 0)
    monkeypatch.setattr(layers, "engine_sha256", lambda: "f" * 64)
    with pytest.raises(InputError, match=r"another version of the renderer.*delete it"):
        layers.prepare(tmp_path, look, 0, 0, 0)
