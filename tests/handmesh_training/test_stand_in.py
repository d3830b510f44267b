"""The stand-in for real data: a sensor's noise in closed form, holes, and the wall."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from handmesh.errors import CheckpointError
from handmesh.graph import Topology
from handmesh_training import stand_in
from handmesh_training.cropped_set import build
from handmesh_training.depth_renderer import DepthRenderer
from handmesh_training.rendered import RenderSettings
from handmesh_training.stand_in import DepthSensor, RenderedSamples
from handmesh_training.surface import Surface

SIDE = 300
PERFECT = DepthSensor(0.0, 0.0, 0.0)


def plane(metres: float) -> np.ndarray:
    return np.full((SIDE, SIDE), metres, dtype=np.float32)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("metres", [0.3, 0.5, 1.4])
def test_noise_grows_with_the_square_of_the_distance(
    rng: np.random.Generator, metres: float
) -> None:
    read = DepthSensor(noise_m=0.004, step_m=0.0, holes=0.0).see(rng, plane(metres))
    assert read.dtype == np.float32
    wanted = 0.004 * metres**2
    # Of 90000 readings, the deviation itself is known to 1/sqrt(2 N): here to five times that.
    assert read.std() == pytest.approx(wanted, rel=5 / np.sqrt(2 * SIDE**2))
    assert read.mean() == pytest.approx(metres, abs=5 * wanted / SIDE)
    assert abs(np.corrcoef(read[:, 1:].ravel(), read[:, :-1].ravel())[0, 1]) < 5 / SIDE


@pytest.mark.parametrize("metres", [0.5, 1.1])
def test_depth_comes_in_levels(rng: np.random.Generator, metres: float) -> None:
    step = 0.003 * metres**2
    read = DepthSensor(noise_m=0.01, step_m=0.003, holes=0.0).see(rng, plane(metres))
    levels = np.unique(read)
    assert len(levels) > 5
    np.testing.assert_allclose(levels / step, np.round(levels / step), atol=2e-3)
    # Rounding adds the variance of a uniform error: step^2 / 12.
    wanted = np.sqrt((0.01 * metres**2) ** 2 + step**2 / 12)
    assert read.std() == pytest.approx(wanted, rel=0.01)


def test_holes_are_three_times_as_many_at_the_edges(rng: np.random.Generator) -> None:
    """Of a near square before a wall, and before nothing."""
    for wall in (1.2, 0.0):
        scene = plane(wall)
        scene[20:280, 20:280] = 0.5
        counts = np.zeros((SIDE, SIDE))
        for _ in range(40):
            counts += DepthSensor(0.001, 0.001, 0.08).see(rng, scene) == 0
        share = counts / 40
        ring = np.zeros((SIDE, SIDE), dtype=bool)
        ring[20:280, 20:280] = True
        ring[21:279, 21:279] = False
        assert share[40:260, 40:260].mean() == pytest.approx(0.08, abs=0.002)
        assert share[ring].mean() == pytest.approx(0.24, abs=0.015)
        if wall:
            assert share[:18].mean() == pytest.approx(0.08, abs=0.005)
        else:
            assert np.all(share[:20] == 1)


def test_the_picture_s_border_is_no_edge(rng: np.random.Generator) -> None:
    scene = plane(0.5)
    scene[:, SIDE // 2 :] = 1.5
    read = np.stack([DepthSensor(0, 0, 0.1).see(rng, scene) for _ in range(60)])
    assert (read[:, :, 0] == 0).mean() == pytest.approx(0.1, abs=0.015)
    assert (read[:, 0, 10:100] == 0).mean() == pytest.approx(0.1, abs=0.02)


def test_a_perfect_sensor_reads_the_truth(rng: np.random.Generator) -> None:
    scene = rng.uniform(0.2, 2, (SIDE, SIDE)).astype(np.float32)
    scene[:30] = 0
    read = PERFECT.see(rng, scene)
    np.testing.assert_allclose(read, scene, atol=1e-6)
    np.testing.assert_array_equal(read == 0, scene == 0)


def grown(mask: np.ndarray) -> np.ndarray:
    """With the eight neighbours of every pixel; what is outside the picture counts as none."""
    padded = np.pad(mask, 1)
    height, width = mask.shape
    shifted = [padded[i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return np.logical_or.reduce(shifted)


LOOK = RenderSettings(crop_px=64)
COUNT = 24


@pytest.mark.usefixtures("quick_surroundings")
class TestRenderedSamples:
    def test_behind_the_hand_is_a_wall_and_before_it_nothing_is_read(self) -> None:
        samples = RenderedSamples(LOOK, 3, COUNT)
        assert len(samples) == COUNT
        renderer = DepthRenderer(Surface.from_topology(Topology.default()), 64)
        hidden = 0
        for i, record in enumerate(samples.renderer.records(range(COUNT))):
            sample = samples[i]
            assert sample.depth_m is not None
            assert sample.joints_m is not None
            assert record.depth_m is not None
            seen = record.depth_m > 0
            np.testing.assert_allclose(sample.depth_m[seen], record.depth_m[seen], atol=1e-6)
            read = sample.depth_m > 0
            wall = sample.joints_m[0, 2] + 0.5
            np.testing.assert_allclose(sample.depth_m[read & ~seen], wall, atol=1e-5)
            # Pixels whose centres the mesh covers; the renderer has a finer one, so that the two
            # may differ by a pixel at the outline.
            lens, points = record.intrinsics, record.vertices_m
            uv = (points[:, :2] / points[:, 2:] * lens[:2] + lens[2:] + 0.5) / 64
            vertices = np.concatenate([uv, points[:, 2:]], axis=1).astype(np.float32)
            mesh = renderer(torch.from_numpy(vertices)[None]).face[0].numpy() >= 0
            within = ~grown(~mesh)
            assert not read[within & ~seen].any()
            assert read[~grown(mesh)].all()
            hidden += (within & ~seen).sum() > 20
        assert 2 <= hidden < COUNT / 2

    def test_every_sample_shows_a_right_hand_and_is_always_the_same(self) -> None:
        settings, sensor = RenderSettings(crop_px=64, empty=0.9), DepthSensor()
        samples = RenderedSamples(settings, 3, COUNT, sensor)
        again = RenderedSamples(settings, 3, COUNT, sensor)
        for i in reversed(range(COUNT)):
            one, two = samples[i], again[i]
            assert one.is_right
            assert one.joint_known.all()
            np.testing.assert_array_equal(one.image, two.image)
            np.testing.assert_array_equal(one.depth_m, two.depth_m)
        assert not np.array_equal(samples[0].depth_m, samples[1].depth_m)

    def test_a_sensor_reads_otherwise_than_the_perfect_one(self) -> None:
        perfect, real = (
            RenderedSamples(LOOK, 3, 4)[1],
            RenderedSamples(LOOK, 3, 4, DepthSensor())[1],
        )
        assert perfect.depth_m is not None
        assert real.depth_m is not None
        np.testing.assert_array_equal(perfect.image, real.image)
        both = (perfect.depth_m > 0) & (real.depth_m > 0)
        assert 0.8 < both.mean() < 0.97
        off = (real.depth_m - perfect.depth_m)[both]
        assert 0 < off.std() < 0.03

    def test_sets_cut_out_of_others_can_be_told_apart(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By the renderer's settings, its sources and the sensor, too."""
        count = Topology.default().vertex_count

        def make(samples: RenderedSamples) -> None:
            build([samples], tmp_path / "set", 16, 1.9, 8, count)

        make(RenderedSamples(LOOK, 3, 2))
        make(RenderedSamples(LOOK, 3, 2, PERFECT))
        for other in (
            RenderedSamples(LOOK, 4, 2),
            RenderedSamples(LOOK, 3, 3),
            RenderedSamples(LOOK, 3, 2, DepthSensor()),
            RenderedSamples(RenderSettings(crop_px=65), 3, 2),
        ):
            with pytest.raises(CheckpointError):
                make(other)
        monkeypatch.setattr(stand_in, "engine_sha256", lambda: "f" * 64)
        with pytest.raises(CheckpointError, match="the renderer of rendered ones; delete it"):
            make(RenderedSamples(LOOK, 3, 2))

    def test_no_file_is_taken_for_their_labels(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Not even those of a folder "rendered" in the working directory."""
        monkeypatch.chdir(tmp_path)
        sizes = (16, 1.9, 8, Topology.default().vertex_count)
        first = build([RenderedSamples(LOOK, 3, 2)], tmp_path / "set", *sizes)
        (tmp_path / "rendered").mkdir()
        (tmp_path / "rendered" / "manifest.json").write_text("{}")
        again = build([RenderedSamples(LOOK, 3, 2)], tmp_path / "set", *sizes)
        assert again.made_from == first.made_from
