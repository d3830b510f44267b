"""The rendering benchmark on small pictures: it measures, compares and watches."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch

from handmesh.errors import InputError
from handmesh_benchmarks import rendering
from handmesh_benchmarks.rendering import Agreement, Rates, compare, measure, rate, table
from handmesh_training.rendered import HandRenderer, RenderSettings
from handmesh_training.rendering import EnvironmentSet, SkinSet


@pytest.fixture(autouse=True)
def _quick_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    places, skins = EnvironmentSet.procedural(0, count=2, height=32), SkinSet.procedural
    monkeypatch.setattr(EnvironmentSet, "procedural", lambda *_: places)
    monkeypatch.setattr(
        SkinSet, "procedural", lambda seed, count, mesh, *_: skins(seed, 2, mesh, size=32)
    )
    monkeypatch.setattr(rendering, "BATCH", 64)


def test_a_rate_counts_the_work_and_not_the_first_call() -> None:
    calls: list[float] = []

    def work() -> int:
        time.sleep(0.2 if not calls else 0.02)
        calls.append(0)
        return 3

    finished: list[int] = []
    found = rate(work, 0.1, lambda: finished.append(len(calls)))
    assert 50 < found < 150
    assert finished == [1, len(calls)], "waits after the first and after the last"


def test_a_row_of_the_cpu() -> None:
    row = measure(RenderSettings(), 32, "cpu", 1, 0, 0.01)
    assert row.device == "cpu, 1 thread"
    assert row.size == 32
    assert row.batches is not None
    # How fast is the machine's affair; that something was timed, the test's.
    assert min(row.scenes, row.pictures, row.batches) > 0


def test_agreement_is_told_from_disagreement(monkeypatch: pytest.MonkeyPatch) -> None:
    hands = HandRenderer(RenderSettings(crop_px=32), seed=0)
    scene = hands.scene(0, 4)
    same = compare(hands, scene, "cpu")
    assert same == Agreement(mean=0.0, alike=1.0, labels=1.0)
    assert same.holds
    # A device that draws the hands two millimetres off.
    plain = rendering.renderer_like

    def moved(*arguments: Any) -> Any:
        draw = plain(*arguments)
        exact = draw.render
        monkeypatch.setattr(draw, "render", lambda v, *more, **w: exact(v + 0.002, *more, **w))
        return draw

    monkeypatch.setattr(rendering, "renderer_like", moved)
    wrong = compare(hands, scene, "cpu")
    assert not wrong.holds
    assert wrong.mean > 0.1
    assert wrong.labels < 0.999


def test_the_table_says_what_was_not_measured() -> None:
    text = table([Rates("cuda", 128, 700.0, 12345.6, None)])
    assert "12,346" in text
    assert text.endswith("-")


def test_memory_is_reported_as_often_as_asked() -> None:
    seen: list[tuple[int, float]] = []
    batches = iter([{"images": torch.zeros(10)}] * 10)
    rendering.watch_memory(batches, 60, 20, lambda made, mib: seen.append((made, mib)))
    assert [made for made, _ in seen] == [10, 20, 40, 60]
    assert all(mib > 10 for _, mib in seen)


@pytest.mark.parametrize("name", ["sizes", "threads", "workers", "memory", "every"])
def test_counts_below_one_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="at least 1"):
        rendering.main(["--devices", "cpu", f"--{name}", "0"])


def test_the_command_prints_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    status = rendering.main(
        ["--devices", "cpu", "--sizes", "32", "--threads", "1", "--seconds", "0.01", "--no-batches"]
    )
    assert status == 0
    out = capsys.readouterr().out
    assert "processor" in out
    assert "cpu, 1 thread" in out
