"""How a latency is measured here, whatever is measured.

Each candidate is loaded and run once, both timed apart, then warmed up without a clock. After that
come rounds: in each round every candidate has one turn of several runs, so that a slow minute of
the machine falls on all of them alike. The work of each candidate is spread over the same number of
rounds, and the order rotates. A turn begins after a pause, in which the threads of the candidate
before it go to sleep, and with one run off the clock, which brings this one's data into the caches.

A result is a headline when it rests on at least `HEADLINE_RUNS` runs that lasted at least
`HEADLINE_SECONDS` together. Anything less is a smoke run and says so.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from handmesh.errors import InputError

HEADLINE_RUNS = 1024
HEADLINE_SECONDS = 60.0

# One run of a candidate. It may return the milliseconds of its stages.
Run = Callable[[], Mapping[str, float] | None]
Kind = Literal["headline", "smoke"]


@dataclass(frozen=True)
class Candidate:
    """One thing to measure.

    Attributes:
        name: what the report calls it.
        load: makes it ready and returns what runs it once.
        facts: what the report must say beside the figure (runtime, threads, precision, ...). They
            are read when all runs are done, which may have added to them.
    """

    name: str
    load: Callable[[], Run]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Protocol:
    """How long to measure.

    Attributes:
        min_runs: runs of each candidate at least.
        min_seconds: seconds that these runs of each candidate last together, at least.
        warmup_runs: runs off the clock after the first one.
        rounds: turns over which each candidate's runs are spread.
        pause_s: seconds between two turns.

    Raises:
        InputError: a number that makes no sense.
    """

    min_runs: int = 64
    min_seconds: float = 2.0
    warmup_runs: int = 5
    rounds: int = 8
    pause_s: float = 0.02

    def __post_init__(self) -> None:
        if self.min_runs < 1 or self.rounds < 1:
            raise InputError(
                f"min_runs and rounds must be at least 1, not {self.min_runs} and {self.rounds}"
            )
        if self.warmup_runs < 0 or self.min_seconds < 0 or self.pause_s < 0:
            raise InputError(
                "warmup_runs, min_seconds and pause_s must not be negative, not "
                f"{self.warmup_runs}, {self.min_seconds} and {self.pause_s}"
            )

    @classmethod
    def headline(cls) -> Protocol:
        """Long enough for a number that may be quoted."""
        return cls(HEADLINE_RUNS, HEADLINE_SECONDS, warmup_runs=32, rounds=32)


@dataclass(frozen=True)
class Percentiles:
    """Milliseconds below which 50, 90 and 99 of 100 runs stay (linear between two runs)."""

    p50: float
    p90: float
    p99: float

    @classmethod
    def of(cls, values_ms: Sequence[float]) -> Percentiles:
        """Of at least one run's milliseconds."""
        p50, p90, p99 = np.percentile(np.asarray(values_ms, dtype=np.float64), (50, 90, 99))
        return cls(float(p50), float(p90), float(p99))


@dataclass(frozen=True)
class Measurement:
    """What was measured of one candidate, in milliseconds unless the name says otherwise.

    Attributes:
        load_ms: the time of `Candidate.load`.
        first_ms: the first run, which may allocate, compile or page in.
        total: percentiles of the steady state.
        stages: percentiles of each stage that the run reported, by name.
        runs, seconds: what the percentiles rest on.
        kind: "headline", or "smoke" when the runs are too few or too short to be quoted.
    """

    name: str
    facts: Mapping[str, Any]
    load_ms: float
    first_ms: float
    total: Percentiles
    stages: Mapping[str, Percentiles]
    runs: int
    seconds: float
    kind: Kind


class _Session:
    """One loaded candidate and the times gathered so far."""

    def __init__(
        self, candidate: Candidate, protocol: Protocol, clock: Callable[[], float]
    ) -> None:
        self.candidate = candidate
        self.clock = clock
        self.totals_s: list[float] = []
        self.stages_ms: dict[str, list[float]] = {}
        start = clock()
        self.run = candidate.load()
        loaded = clock()
        self.run()
        self.load_s, self.first_s = loaded - start, clock() - loaded
        # The last warm-up run tells how many runs make up a turn.
        typical = self.first_s
        for _ in range(protocol.warmup_runs):
            start = clock()
            self.run()
            typical = clock() - start
        by_time = protocol.min_seconds / typical if typical > 0 else 0.0
        self.runs_per_turn = math.ceil(max(protocol.min_runs, by_time) / protocol.rounds)

    @property
    def seconds(self) -> float:
        return sum(self.totals_s)

    def turn(self) -> None:
        self.run()
        for _ in range(self.runs_per_turn):
            start = self.clock()
            stages = self.run()
            self.totals_s.append(self.clock() - start)
            for name, value in (stages or {}).items():
                self.stages_ms.setdefault(name, []).append(value)

    def measurement(self) -> Measurement:
        enough = len(self.totals_s) >= HEADLINE_RUNS and self.seconds >= HEADLINE_SECONDS
        return Measurement(
            name=self.candidate.name,
            facts=dict(self.candidate.facts),
            load_ms=self.load_s * 1e3,
            first_ms=self.first_s * 1e3,
            total=Percentiles.of([seconds * 1e3 for seconds in self.totals_s]),
            stages={name: Percentiles.of(values) for name, values in self.stages_ms.items()},
            runs=len(self.totals_s),
            seconds=self.seconds,
            kind="headline" if enough else "smoke",
        )


def measure(
    candidates: Sequence[Candidate],
    protocol: Protocol,
    *,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Measurement]:
    """Measure all candidates in one interleaved run; results in the order given.

    Args:
        candidates: what to measure; their names must differ.
        protocol: how long.
        clock: seconds, monotonic. Tests give their own.
        sleep: waits for a number of seconds between turns.

    Raises:
        InputError: no candidates, or two of the same name.
    """
    names = [candidate.name for candidate in candidates]
    if not names or len(set(names)) != len(names):
        raise InputError(f"candidates must be at least one, with different names, not {names}")
    sessions = [_Session(candidate, protocol, clock) for candidate in candidates]
    unfinished, turn = list(sessions), 0
    while unfinished:
        start = turn % len(unfinished)
        for session in unfinished[start:] + unfinished[:start]:
            sleep(protocol.pause_s)
            session.turn()
        turn += 1
        unfinished = [
            session
            for session in unfinished
            if len(session.totals_s) < protocol.min_runs or session.seconds < protocol.min_seconds
        ]
    return [session.measurement() for session in sessions]
