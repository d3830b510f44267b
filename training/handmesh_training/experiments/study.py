"""Variants of a training, run over several seeds and compared within each seed.

Every run keeps its figures in a file of its own, so that a study that was stopped goes on, and one
that has its figures is only told again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student
from tqdm import tqdm

from handmesh.atomic import write_atomic
from handmesh.errors import InputError

Figures = dict[str, float]
FIGURES = "figures.json"


@dataclass(frozen=True)
class Variant:
    """One row of a study.

    Attributes:
        name: as in the table. run: trains in a folder with a seed, and measures.
        published: what the paper reports for it, by figure.
    """

    name: str
    run: Callable[[Path, int], Figures]
    published: Figures


@dataclass(frozen=True)
class Result:
    """One figure of one variant.

    Attributes:
        values: (S,) by seed. against: (S,) the reference's, of the same seeds.
    """

    values: NDArray[np.float64]
    against: NDArray[np.float64]

    @property
    def mean(self) -> float:
        return float(self.values.mean())

    @property
    def difference(self) -> float:
        """Mean difference from the reference."""
        return float((self.values - self.against).mean())

    @property
    def spread(self) -> float:
        """Standard deviation of the difference between seeds; NaN for a single seed."""
        if len(self.values) < 2:
            return float("nan")
        return float((self.values - self.against).std(ddof=1))

    @property
    def stands_out(self) -> bool:
        """Whether zero lies outside the difference's 95 % interval (Student's t, paired)."""
        count = len(self.values)
        if count < 2:
            return False
        reach = student.ppf(0.975, count - 1) * self.spread / np.sqrt(count)
        return bool(abs(self.difference) > reach)


@dataclass(frozen=True)
class Study:
    """A table of the paper.

    Attributes:
        name: of the command. title: over the table. reference: the variant others are compared
            with. variants: in their order. figures: names and units, in their order.
    """

    name: str
    title: str
    reference: str
    variants: Sequence[Variant]
    figures: dict[str, str]

    def run(self, folder: Path, seeds: Sequence[int]) -> dict[str, dict[str, Result]]:
        """Train and measure whatever has not been.

        Raises:
            InputError: no seed, or figures of a run that cannot be read.
        """
        if not seeds:
            raise InputError("a study takes at least one seed")
        jobs = [(variant, seed) for seed in seeds for variant in self.variants]
        found: dict[tuple[str, int], Figures] = {}
        for variant, seed in tqdm(jobs, desc=self.name, unit="run"):
            found[variant.name, seed] = _figures(variant, place(folder, variant.name, seed), seed)
        return {
            variant.name: {
                figure: Result(
                    np.array([found[variant.name, seed][figure] for seed in seeds]),
                    np.array([found[self.reference, seed].get(figure, np.nan) for seed in seeds]),
                )
                for figure in self.figures
                if figure in found[variant.name, seeds[0]]
            }
            for variant in self.variants
        }

    def to_markdown(self, results: dict[str, dict[str, Result]]) -> str:
        """The table, the paper's own figures beside ours, and what the differences are worth."""
        head = ["", *(f"{name}, {unit}" for name, unit in self.figures.items())]
        head += [f"paper: {name}" for name in self.figures if self._is_published(name)]
        lines = [f"### {self.title}", "", _row(head), _row(["---"] * len(head))]
        for variant in self.variants:
            cells = [variant.name]
            for figure in self.figures:
                result = results[variant.name].get(figure)
                cells.append("" if result is None else self._cell(variant, result))
            for figure in self.figures:
                if self._is_published(figure):
                    value = variant.published.get(figure)
                    cells.append("" if value is None else f"{value:.2f}")
            lines.append(_row(cells))
        seeds = len(next(iter(results[self.reference].values())).values)
        lines += [
            "",
            f"Mean of {seeds} seeds; in brackets the difference from “{self.reference}” within a "
            "seed and its standard deviation between seeds. A star marks differences whose 95 % "
            "interval (paired t) leaves out zero; what has none is not told from chance by so many "
            "runs.",
        ]
        return "\n".join(lines) + "\n"

    def _cell(self, variant: Variant, result: Result) -> str:
        if variant.name == self.reference:
            return f"{result.mean:.2f}"
        star = "*" if result.stands_out else ""
        return f"{result.mean:.2f} ({result.difference:+.2f} ± {result.spread:.2f}){star}"

    def _is_published(self, figure: str) -> bool:
        return any(figure in variant.published for variant in self.variants)


def place(folder: Path, variant: str, seed: int) -> Path:
    """Where a run of the study in ``folder`` keeps what it found."""
    return folder / _slug(variant) / f"seed{seed}"


def _figures(variant: Variant, own: Path, seed: int) -> Figures:
    path = own / FIGURES
    if path.exists():
        try:
            return {str(k): float(v) for k, v in json.loads(path.read_text()).items()}
        except (AttributeError, TypeError, ValueError) as error:
            raise InputError(f"{path} holds no figures ({error}); delete it") from error
    own.mkdir(parents=True, exist_ok=True)
    figures = variant.run(own, seed)
    write_atomic(path, (json.dumps(figures, indent=2) + "\n").encode())
    return figures


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-")


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
