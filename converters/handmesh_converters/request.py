"""What may be asked of an export, checked against the table of formats before any work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from handmesh.errors import InputError
from handmesh.spelling import did_you_mean

from .forms import FORMS

__all__ = ["PRECISIONS", "Abilities", "Job", "Precision", "Request", "one_of"]

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")


@dataclass(frozen=True)
class Abilities:
    """One row of the table of formats: what it can be asked for. The first of each is its default.

    Attributes:
        graphs: names of `forms.FORMS`. precisions: what a precision means is the format's to say.
        optimizations: name -> (precisions it goes with, what it does).
        optimized_graphs: name of an optimization -> graph that it is for, where that is not the
            default: it goes with the others, and does little for them.
        alternatives: optimizations of which a request may have one.
        detector_optimizations: names of those that networks that find hands have as well.
        detector_precisions: of networks that find hands, the first again the default: empty where
            it takes none. None: as those of meshes.
    """

    graphs: Sequence[str]
    precisions: Sequence[Precision]
    optimizations: Mapping[str, tuple[Sequence[Precision], str]] = field(default_factory=dict)
    optimized_graphs: Mapping[str, str] = field(default_factory=dict)
    alternatives: Sequence[str] = ()
    detector_precisions: Sequence[Precision] | None = None
    detector_optimizations: Sequence[str] = ()

    def precisions_of(self, detector: bool) -> Sequence[Precision]:
        """Those of a network that finds hands, or of one that gives meshes."""
        own = self.detector_precisions if detector else None
        return self.precisions if own is None else own


@dataclass(frozen=True)
class Request:
    """What is wanted of an artifact; None is the format's default.

    Attributes:
        graph: name of a form of the graph convolutions.
        precision: of weights, and where the format says so of computation.
        optimize: names of the format's optimizations.
    """

    graph: str | None = None
    precision: Precision | None = None
    optimize: tuple[str, ...] = ()

    def resolve(
        self,
        name: str,
        able: Abilities,
        table: Mapping[str, Abilities] | None = None,
        detector: bool = False,
    ) -> tuple[str, Precision]:
        """Graph and precision for a format of that name.

        Args:
            name, able: of the format. table: of all formats, to name those that can.
            detector: whether the network finds hands.

        Raises:
            InputError: what the format cannot do, with what it can.
        """
        precisions = able.precisions_of(detector)
        rows = table or {}
        if not precisions:
            others = [n for n, row in rows.items() if row.precisions_of(detector)]
            raise InputError(
                f"format {name!r} is for networks that give meshes, and this one finds hands"
                + (f": export {', '.join(others)}" if others else "")
            )
        if detector and self.graph is not None:
            raise InputError(
                f"a network that finds hands has no mesh graph: leave out the form {self.graph!r}"
            )
        graph = able.graphs[0] if self.graph is None else self.graph
        one_of("graph", graph, tuple(FORMS))
        precision = precisions[0] if self.precision is None else self.precision
        one_of("precision", precision, PRECISIONS)
        graphs_of = {other: row.graphs for other, row in rows.items()}
        precisions_of = {other: row.precisions_of(detector) for other, row in rows.items()}
        _check_row(name, "graph", graph, able.graphs, graphs_of)
        for_whom = "precision of detectors" if detector else "precision"
        _check_row(name, for_whom, precision, precisions, precisions_of)
        for wanted in self.optimize:
            if not able.optimizations:
                raise InputError(f"format {name!r} has no optimizations, {wanted!r} was asked for")
            one_of(f"an optimization of format {name!r}", wanted, tuple(able.optimizations))
            if detector and wanted not in able.detector_optimizations:
                raise InputError(
                    f"optimization {wanted!r} of format {name!r} is for a mesh, which "
                    "a network without a mesh does not have: leave out --optimize"
                )
            goes_with, _ = able.optimizations[wanted]
            if precision not in goes_with:
                possible = [each for each in goes_with if each in precisions]
                remedy = f"give --precision {possible[0]}" if possible else "leave out --optimize"
                raise InputError(
                    f"optimization {wanted!r} of format {name!r} goes with precision "
                    f"{' or '.join(goes_with)}, not {precision}: {remedy}"
                )
        both = [wanted for wanted in able.alternatives if wanted in self.optimize]
        if len(both) > 1:
            raise InputError(
                f"optimizations {' and '.join(both)} of format {name!r} exclude each other: "
                "give one"
            )
        return graph, precision


@dataclass(frozen=True, eq=False)
class Job:
    """What a format is given beside the twin.

    Attributes:
        metadata: to be written into the artifact.
        precision, optimize: as resolved.
        crops: (N, S, S, 3) uint8 RGB, for whatever has to be calibrated.
        bone_ratios: (20,), see `handmesh.graph.Topology`: for differences in millimetres; None for
            a network without a mesh.
    """

    metadata: Mapping[str, str]
    precision: Precision
    optimize: frozenset[str]
    crops: NDArray[np.uint8]
    bone_ratios: NDArray[np.float32] | None = None


def _check_row(
    name: str, what: str, value: str, allowed: Sequence[str], table: Mapping[str, Sequence[str]]
) -> None:
    """Raise `InputError` unless a format can do that, naming the formats that can."""
    if value in allowed:
        return
    others = [other for other, row in table.items() if value in row]
    hint = f"; {' and '.join(others)} can" if others else ""
    raise InputError(f"format {name!r} has no {what} {value!r}; it has {', '.join(allowed)}{hint}")


def one_of(what: str, value: str, allowed: Sequence[str]) -> None:
    """Raise `InputError` unless the value is one of those, naming the nearest."""
    if value in allowed:
        return
    raise InputError(
        f"{what} must be one of {', '.join(allowed)}; not {value!r}{did_you_mean(value, allowed)}"
    )
