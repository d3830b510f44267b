"""docs/benchmarks.md is what its command makes of the committed results, and nothing else."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from handmesh.errors import InputError
from handmesh_benchmarks.documentation import BEGIN, END, PAGE, README, main, make
from handmesh_benchmarks.results import load

ROOT = Path(__file__).resolve().parents[2]


def test_page_is_what_the_command_makes() -> None:
    assert main(["--root", str(ROOT), "--check"]) == 0


def test_committed_results_can_be_read() -> None:
    for path in (ROOT / "docs" / "benchmarks").glob("*.json"):
        assert load(path).measurements


def _checkout(folder: Path, made: Any) -> Path:
    (folder / "docs" / "benchmarks").mkdir(parents=True)
    (folder / "docs" / "images").mkdir()
    made.results(
        made.row("predict", p50=9.0, crop=0.4, geometry=0.3), made.row(p50=4.125),
        made.row("parts", network="paper", p50=171.0, trunk=140.0, mesh=30.0, pose=1.0),
    ).write(folder / "docs" / "benchmarks" / "abacus.json")  # fmt: skip
    return folder


def test_a_changed_figure_is_noticed(made: Any, tmp_path: Path) -> None:
    root = _checkout(tmp_path, made)
    assert main(["--root", str(root), "--check"]) == 1  # nothing there yet
    assert main(["--root", str(root)]) == 0
    page = root / PAGE
    assert "| 4.12 |" in page.read_text() or "| 4.13 |" in page.read_text()
    assert main(["--root", str(root), "--check"]) == 0

    page.write_text(page.read_text().replace("| 50.00 |", "| 49.00 |"))
    assert main(["--root", str(root), "--check"]) == 1


def test_every_picture_that_the_page_shows_is_made(made: Any, tmp_path: Path) -> None:
    files = make(_checkout(tmp_path, made))

    shown = [line.split("](")[1].rstrip(")") for line in files[PAGE].splitlines() if "![" in line]
    assert shown
    assert {f"docs/{name}" for name in shown} == {str(path) for path in files} - {str(PAGE)}


def _scaled(made: Any, ms: float) -> Any:
    rows = []
    for x in (1, 2, 4):
        row = made.row("scaling batch", p50=ms * x)
        row.facts["x"] = x
        rows.append(dataclasses.replace(row, name=f"scaling batch light {x}"))
    return made.results(*rows, processor=f"Abacus {ms:g}")


def test_scaling_of_every_machine_is_shown(made: Any, tmp_path: Path) -> None:
    root = _checkout(tmp_path, made)
    folder = root / "docs" / "benchmarks"
    _scaled(made, 3.0).write(folder / "scaling.json")
    alone = make(root)
    assert "## Scaling\n" in alone[PAGE]
    assert Path("docs/images/scaling_batch.svg") in alone

    _scaled(made, 7.0).write(folder / "scaling_board.json")
    text = make(root)[PAGE]

    assert "## Scaling: scaling\n" in text
    assert "## Scaling: scaling_board\n" in text
    assert "| 4 | 12.000 |" in text
    assert "| 4 | 28.000 |" in text
    assert "run on Abacus 7," in text
    shown = [line.split("](")[1].rstrip(")") for line in text.splitlines() if "![" in line]
    assert len(set(shown)) == len(shown)


def test_files_that_would_be_left_out_are_refused(made: Any, tmp_path: Path) -> None:
    root = _checkout(tmp_path, made)
    folder = root / "docs" / "benchmarks"
    mixed = _scaled(made, 3.0)
    mixed.measurements = [*mixed.measurements, made.row()]
    mixed.write(folder / "mixed.json")
    with pytest.raises(InputError, match=r"mixed\.json holds scaling and other rows"):
        make(root)

    (folder / "mixed.json").unlink()
    made.results(state="partial").write(folder / "none.json")
    with pytest.raises(InputError, match=r"none\.json holds no row"):
        make(root)


def test_smoke_runs_are_marked(made: Any, tmp_path: Path) -> None:
    root = _checkout(tmp_path, made)
    made.results(made.row(kind="smoke")).write(root / "docs" / "benchmarks" / "other.json")

    assert "smoke run; not to be quoted" in make(root)[PAGE]


def test_malformed_results_are_named(tmp_path: Path, made: Any) -> None:
    root = _checkout(tmp_path, made)
    (root / "docs" / "benchmarks" / "bad.json").write_text("{")

    with pytest.raises(InputError, match=r"bad\.json is no JSON"):
        make(root)


def test_an_empty_folder_makes_an_honest_page(tmp_path: Path) -> None:
    assert "Nothing has been measured" in make(tmp_path)[PAGE]


def test_the_readme_has_the_figures_between_its_marks(made: Any, tmp_path: Path) -> None:
    root = _checkout(tmp_path, made)
    readme = root / README
    readme.write_text(f"before\n{BEGIN}old\n{END}after\n")
    assert main(["--root", str(root)]) == 0

    text = readme.read_text()

    assert text.startswith(f"before\n{BEGIN}\nOn Abacus 3")
    assert text.endswith(f"\n{END}after\n")
    assert "old" not in text
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    assert ["onnx 1.0, CPU", "fp32", "9.0", "10.0", "-", "0.40", "-", "0.30"] in rows
    assert ["paper", "onnx 1.0, CPU", "fp32", "140.00", "30.00", "1.00", "171.00"] in rows
    assert main(["--root", str(root), "--check"]) == 0

    readme.write_text("no marks")
    with pytest.raises(InputError, match="must hold the lines"):
        make(root)


def test_a_smoke_run_is_not_quoted_in_the_readme(made: Any, tmp_path: Path) -> None:
    root = _checkout(tmp_path, made)
    smoke = made.row("predict", p50=9.0, kind="smoke")
    made.results(smoke).write(root / "docs" / "benchmarks" / "abacus.json")
    (root / README).write_text(BEGIN + END)

    assert README not in make(root)
