"""Core ML on a Mac, by coremltools' own benchmark: times that Core ML itself reports, and which
unit it plans each operator on.

Elsewhere Core ML does not run, and this says so. On a Mac the table of `handmesh bench` has the
backend "coreml" as well, through `predict()`; here each choice of compute units is a row.
"""

from __future__ import annotations

import asyncio
import collections
import platform
from collections.abc import Callable, Sequence
from typing import Any

from handmesh.errors import BackendError, BackendUnavailable
from handmesh.installing import pip_install

from ..candidates import facts_of
from ..device import describe
from ..protocol import Measurement, Percentiles, Protocol, kind_for
from ..report import short
from ..results import Results
from ..variants import Variant

__all__ = ["UNITS", "measure"]

UNITS = ("ALL", "CPU_AND_NE", "CPU_AND_GPU", "CPU_ONLY")


def measure(
    variants: Sequence[Variant],
    protocol: Protocol,
    write: Callable[[Results], None],
    say: Callable[[str], None],
    missing: Sequence[str] = (),
) -> Results:
    """Networks alone, on each choice of compute units.

    Args:
        variants: artifacts; only those for "coreml" are taken. protocol: how long.
        write: keeps the results after every row. say: told of the progress.
        missing: what is known beforehand not to be measured, and why.

    Raises:
        BackendUnavailable: this is no Mac, coremltools is missing, or there is no artifact.
    """
    if platform.system() != "Darwin":
        raise BackendUnavailable(
            f"Core ML runs on macOS only and this is {platform.system()}: run the command on a Mac "
            "(`handmesh verify` proves a .mlpackage anywhere, but not its speed)"
        )
    chosen = [variant for variant in variants if variant.backend == "coreml"]
    if not chosen:
        raise BackendUnavailable(
            "there is no .mlpackage: make one with "
            "`handmesh export light --format coreml --out DIR`"
            + "".join(f"; {reason}" for reason in missing)
        )
    results = Results(describe(), missing=list(missing), protocol=protocol)
    results.context["measured_on"] = "coreml"
    rows: list[Measurement] = []
    try:
        for variant in chosen:
            for unit in UNITS:
                say(f"{variant.name}, {unit}")
                try:
                    rows.append(_one(variant, unit, protocol))
                except BackendError as error:
                    results.missing.append(f"{variant.name}, {unit}: {error}")
                results.measurements = rows
                write(results)
    except BaseException as error:
        results.stopped_by = type(error).__name__
        write(results)
        raise
    if not rows:
        raise BackendUnavailable(
            f"nothing could be measured: {'; '.join(map(short, results.missing))}"
        )
    results.state = "complete"
    write(results)
    return results


def _one(variant: Variant, unit: str, protocol: Protocol) -> Measurement:
    try:
        import coremltools
        from coremltools.models.ml_program.experimental.perf_utils import MLModelBenchmarker
    except ImportError as cause:
        raise BackendUnavailable(
            f"the package 'coremltools' (9 or newer) is missing: {pip_install('coreml')}"
        ) from cause

    async def samples(benchmark: Any) -> tuple[list[float], list[float], list[float]]:
        load = await benchmark.benchmark_load(iterations=1)
        first = await benchmark.benchmark_predict(iterations=1)
        await benchmark.benchmark_predict(iterations=max(1, protocol.warmup_runs))
        steady: list[float] = []
        while len(steady) < protocol.min_runs or sum(steady) / 1e3 < protocol.min_seconds:
            turn = max(1, protocol.min_runs // protocol.rounds)
            steady += (await benchmark.benchmark_predict(iterations=turn)).samples
        return load.samples, first.samples, steady

    path = variant.bundle.artifact("coreml")
    try:
        model = coremltools.models.MLModel(
            str(path), compute_units=getattr(coremltools.ComputeUnit, unit)
        )
        load, first, steady = asyncio.run(samples(MLModelBenchmarker(model=model)))
        plan = _plan(model)
    except Exception as cause:  # Core ML's own errors share no base class
        raise BackendError(f"Core ML failed on {unit}: {cause}") from cause
    seconds = sum(steady) / 1e3
    facts: dict[str, Any] = facts_of("network", variant, 1) | {
        "threads": 0,
        "provider": f"Core ML, {unit}{plan}",
    }
    size = max(1, len(steady) // protocol.rounds)
    rounds = [steady[i : i + size] for i in range(0, len(steady), size)]
    return Measurement(
        name=f"network {variant.name} {unit}",
        facts=facts,
        load_ms=load[0],
        first_ms=first[0],
        total=Percentiles.of(steady),
        stages={},
        runs=len(steady),
        seconds=seconds,
        kind=kind_for(len(steady), seconds),
        rounds={"total": [Percentiles.of(values).p50 for values in rounds]},
    )


def _plan(model: Any) -> str:
    """Operators by the unit that Core ML prefers for them, "" where it does not tell."""
    from coremltools.models.compute_plan import MLComputePlan

    plan = MLComputePlan.load_from_path(
        path=model.get_compiled_model_path(), compute_units=model.compute_unit
    )
    program = plan.model_structure.program
    if program is None:
        return ""
    counted: collections.Counter[str] = collections.Counter()
    for operation in program.functions["main"].block.operations:
        usage = plan.get_compute_device_usage_for_mlprogram_operation(operation)
        if usage is not None:
            counted[type(usage.preferred_compute_device).__name__] += 1
    return "".join(f", {count} on {name}" for name, count in counted.most_common())
