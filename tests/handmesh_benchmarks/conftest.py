"""Results that the tests of reports and comparisons share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from handmesh_benchmarks.protocol import Kind, Measurement, Percentiles, Protocol
from handmesh_benchmarks.results import Results


class Made:
    """Makes rows and runs with known numbers."""

    def artifact(self, mm: float | None = 9.5) -> dict[str, Any]:
        accuracy = None if mm is None else {"crops": 22, "mm": mm, "px": 8.0, "network_mm": 9.25}
        return {
            "bytes": 8_000_000,
            "sha256": "0" * 64,
            "computes": "fp32",
            "graph": "recurrence",
            "weights": "trained",
            "accuracy": accuracy,
            "parity": None,
        }

    def row(
        self,
        task: str = "network",
        network: str = "light",
        backend: str = "onnx",
        threads: int = 1,
        p50: float = 4.0,
        kind: Kind = "headline",
        noise: float = 0.01,
        stages: Mapping[str, float] | None = None,
        **more: float,
    ) -> Measurement:
        """A row; its stages by name, or in `stages`, where "network" is one and not the network."""
        stages = {**(stages or {}), **more}
        facts: dict[str, Any] = {
            "task": task,
            "network": network,
            "backend": backend,
            "threads": threads,
            "batch": 1,
            "precision": "fp32",
            "provider": f"{backend} 1.0, CPU",
            "artifact": self.artifact(9.5 if network == "light" else None),
            "memory": {"before_mib": 50.0, "peak_mib": 97.0},
        }
        if task == "predict":
            facts["crops_seen"] = 2
        factors = [1 + noise * step for step in (-1, -0.5, 0, 0, 0.5, 1)]
        rounds = {"total": [p50 * f for f in factors]}
        rounds |= {name: [value * f for f in factors] for name, value in stages.items()}
        return Measurement(
            name=f"{task} {network} {backend} {threads}",
            facts=facts,
            load_ms=50.0,
            first_ms=9.0,
            total=Percentiles(p50, p50 + 1, p50 + 2),
            stages={name: Percentiles(v, v * 2, v * 4) for name, v in stages.items()},
            runs=2000,
            seconds=61.0,
            kind=kind,
            rounds=rounds,
        )

    def results(self, *rows: Measurement, state: str = "complete", **device: Any) -> Results:
        machine = {"processor": "Abacus 3", "cores_usable": 2, "load_1min": 0.1} | device
        return Results(machine, list(rows), protocol=Protocol(), state=state)


@pytest.fixture(scope="session")
def made() -> Made:
    return Made()
