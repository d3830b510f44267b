"""How a latency is measured here, whatever is measured.

Each candidate is loaded and run once, both timed apart, then warmed up without a clock. After that
come rounds: in each round every candidate has one turn of several runs, so that a slow minute of
the machine falls on all of them alike. The work of each candidate is spread over the same number of
rounds, and the order rotates. A turn begins after a pause, in which the threads of the candidate
before it go to sleep, and with one run off the clock, which brings this one's data into the caches.

A result is a headline when it rests on at least `HEADLINE_RUNS` runs that lasted at least
`HEADLINE_SECONDS` together. Anything less is a smoke run and says so.

The medians of the rounds are kept: how far they lie apart is the run's own spread, by which two
runs are compared.

This module, `device` and `runner` are copied to other devices and run there as they are: nothing
but the standard library, NumPy and the error tree is imported, and Python 3.8 must read them.
"""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass, field
from typing import Any, Callable, Literal, Mapping, Optional, Sequence  # noqa: UP035

import numpy as np

from handmesh.errors import HandMeshError, InputError

HEADLINE_RUNS = 1024
HEADLINE_SECONDS = 60.0

# One run of a candidate. It may return the milliseconds of its stages.
Run = Callable[[], Optional[Mapping[str, float]]]  # noqa: UP045  (evaluated: Python 3.8)
Kind = Literal["headline", "smoke"]
TOTAL = "total"  # the whole run, among the stages of `Measurement.rounds`


def kind_for(runs: int, seconds: float) -> Kind:
    """Of a row with so many runs that lasted so long together."""
    enough = runs >= HEADLINE_RUNS and seconds >= HEADLINE_SECONDS
    return "headline" if enough else "smoke"


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
        max_seconds: after which a slow candidate may stop short of the above, and its warm-up too;
            None for no such end.

    Raises:
        InputError: a number that makes no sense.
    """

    min_runs: int = 64
    min_seconds: float = 2.0
    warmup_runs: int = 5
    rounds: int = 8
    pause_s: float = 0.02
    max_seconds: float | None = None

    def __post_init__(self) -> None:
        if self.min_runs < 1 or self.rounds < 1:
            raise InputError(
                f"min_runs and rounds must be at least 1, not {self.min_runs} and {self.rounds}"
            )
        given = (self.warmup_runs, self.min_seconds, self.pause_s)
        # Not `<`: what is no number is not less than 0 either.
        if not all(math.isfinite(value) and value >= 0 for value in given):
            raise InputError(
                "warmup_runs, min_seconds and pause_s must be finite and must not be negative, not "
                f"{self.warmup_runs}, {self.min_seconds} and {self.pause_s}"
            )
        if self.max_seconds is not None and not self.max_seconds >= 0:
            raise InputError(
                f"max_seconds must not be negative, and None for no end, not {self.max_seconds}"
            )

    @classmethod
    def headline(cls) -> Protocol:
        """Long enough for a number that may be quoted."""
        return cls(HEADLINE_RUNS, HEADLINE_SECONDS, warmup_runs=32, rounds=32)


@dataclass(frozen=True)
class Percentiles:
    """Milliseconds below which 50, 90 and 99 of 100 runs stay (linear between two runs)."""

    p50: float
    p90: float | None
    p99: float | None

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
        rounds: medians of the rounds, in order; of the whole run as "total", and of each stage.
    """

    name: str
    facts: Mapping[str, Any]
    load_ms: float | None
    first_ms: float | None
    total: Percentiles
    stages: Mapping[str, Percentiles]
    runs: int
    seconds: float
    kind: Kind
    rounds: Mapping[str, Sequence[float]] = field(default_factory=dict)


class _Session:
    """One loaded candidate and the times gathered so far."""

    def __init__(
        self, candidate: Candidate, protocol: Protocol, clock: Callable[[], float]
    ) -> None:
        self.candidate = candidate
        self.clock = clock
        self.totals_s: list[float] = []
        self.stages_ms: dict[str, list[float]] = {}
        self.rounds: dict[str, list[float]] = {}
        start = clock()
        self.run = candidate.load()
        loaded = clock()
        self.run()
        self.load_s, self.first_s = loaded - start, clock() - loaded
        # The median of the warm-up tells how many runs make up a turn: one odd run does not.
        warm: list[float] = []
        most = math.inf if protocol.max_seconds is None else protocol.max_seconds
        for _ in range(protocol.warmup_runs):
            start = clock()
            self.run()
            warm.append(clock() - start)
            if clock() - loaded > most:
                break
        typical = statistics.median(warm) if warm else self.first_s
        by_time = protocol.min_seconds / typical if typical > 0 else 0.0
        allowed = most / typical if typical > 0 else math.inf
        runs = min(max(protocol.min_runs, by_time), allowed)
        self.runs_per_turn = max(1, math.ceil(runs / protocol.rounds))
        self.protocol = protocol

    @property
    def seconds(self) -> float:
        return sum(self.totals_s)

    @property
    def unfinished(self) -> bool:
        """Whether another turn is due."""
        most = self.protocol.max_seconds
        if most is not None and self.seconds >= most:
            return False
        return (
            len(self.totals_s) < self.protocol.min_runs or self.seconds < self.protocol.min_seconds
        )

    def turn(self) -> None:
        self.run()
        turn: dict[str, list[float]] = {}
        for _ in range(self.runs_per_turn):
            start = self.clock()
            stages = self.run()
            seconds = self.clock() - start
            self.totals_s.append(seconds)
            turn.setdefault(TOTAL, []).append(seconds * 1e3)
            for name, value in (stages or {}).items():
                self.stages_ms.setdefault(name, []).append(value)
                turn.setdefault(name, []).append(value)
        for name, values in turn.items():
            self.rounds.setdefault(name, []).append(float(np.median(values)))

    def measurement(self) -> Measurement:
        return Measurement(
            name=self.candidate.name,
            facts=dict(self.candidate.facts),
            load_ms=self.load_s * 1e3,
            first_ms=self.first_s * 1e3,
            total=Percentiles.of([seconds * 1e3 for seconds in self.totals_s]),
            stages={name: Percentiles.of(values) for name, values in self.stages_ms.items()},
            runs=len(self.totals_s),
            seconds=self.seconds,
            kind=kind_for(len(self.totals_s), self.seconds),
            rounds={name: list(medians) for name, medians in self.rounds.items()},
        )


def measure(
    candidates: Sequence[Candidate],
    protocol: Protocol,
    *,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
    after_round: Callable[[list[Measurement]], None] | None = None,
    on_failure: Callable[[Candidate, HandMeshError], None] | None = None,
) -> list[Measurement]:
    """Measure all candidates in one interleaved run; results in the order given.

    Args:
        candidates: what to measure; their names must differ.
        protocol: how long.
        clock: seconds, monotonic. Tests give their own.
        sleep: waits for a number of seconds between turns.
        after_round: told, after each round, what has been measured so far.
        on_failure: told of a candidate that could not be loaded or run, which is left out then.
            Without it that ends the measurement.

    Raises:
        InputError: no candidates, or two of the same name.
    """
    names = [candidate.name for candidate in candidates]
    if not names or len(set(names)) != len(names):
        raise InputError(f"candidates must be at least one, with different names, not {names}")
    sessions: list[_Session] = []
    for candidate in candidates:
        try:
            sessions.append(_Session(candidate, protocol, clock))
        except HandMeshError as error:
            if on_failure is None:
                raise
            on_failure(candidate, error)
    unfinished, turn = list(sessions), 0
    while unfinished:
        start = turn % len(unfinished)
        for session in unfinished[start:] + unfinished[:start]:
            sleep(protocol.pause_s)
            try:
                session.turn()
            except HandMeshError as error:
                if on_failure is None:
                    raise
                on_failure(session.candidate, error)
                sessions.remove(session)
        turn += 1
        if after_round is not None:
            after_round([session.measurement() for session in sessions])
        unfinished = [session for session in sessions if session.unfinished]
    return [session.measurement() for session in sessions]
