"""The protocol with a clock of our own: what is inside the figures, and in which order."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest

from handmesh.errors import BackendError, InputError
from handmesh_benchmarks.protocol import (
    Candidate,
    Percentiles,
    Protocol,
    Run,
    measure,
)


@dataclass
class FakeTime:
    """Time that passes only when a fake candidate or a pause says so."""

    now: float = 0.0
    slept: list[float] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@dataclass
class Worker:
    """A candidate whose n-th run takes ``cost(n)`` seconds, and that logs its runs."""

    name: str
    time: FakeTime
    log: list[str]
    costs: list[float] = field(default_factory=list)
    steady: float = 0.010
    load_s: float = 0.5
    stages: Mapping[str, float] | None = None

    def candidate(self) -> Candidate:
        return Candidate(self.name, self._load)

    def _load(self) -> Run:
        self.time.now += self.load_s
        return self._run

    def _run(self) -> Mapping[str, float] | None:
        self.log.append(self.name)
        self.time.now += self.costs.pop(0) if self.costs else self.steady
        return self.stages


def test_percentiles_agree_with_the_definition() -> None:
    values = np.random.default_rng(0).gamma(2.0, 3.0, size=1001)
    ordered = np.sort(values)

    got = Percentiles.of(values.tolist())

    # With 1001 values the percentiles fall on values, not between two of them.
    assert (got.p50, got.p90, got.p99) == pytest.approx((ordered[500], ordered[900], ordered[990]))
    assert Percentiles.of([7.0]) == Percentiles(7.0, 7.0, 7.0)
    assert Percentiles.of([1.0, 2.0]).p50 == pytest.approx(1.5)


def test_load_first_run_and_warm_up_stay_out_of_the_steady_state() -> None:
    time, log = FakeTime(), []
    worker = Worker("a", time, log, costs=[3.0, 2.0, 0.010], load_s=0.25)
    protocol = Protocol(min_runs=20, min_seconds=0, warmup_runs=2, rounds=4, pause_s=1.0)

    (result,) = measure([worker.candidate()], protocol, clock=time.clock, sleep=time.sleep)

    assert result.load_ms == pytest.approx(250)
    assert result.first_ms == pytest.approx(3000)
    assert result.total.p99 == pytest.approx(10)
    assert result.runs == 20
    assert result.seconds == pytest.approx(0.2)


def test_the_first_run_of_each_turn_is_off_the_clock() -> None:
    time, log = FakeTime(), []
    # first, warm-up, then 2 turns of (1 cold + 3 timed) runs
    costs = [0.01, 0.01, 5.0, 0.01, 0.01, 0.01, 5.0, 0.01, 0.01, 0.01]
    worker = Worker("a", time, log, costs=costs)
    protocol = Protocol(min_runs=6, min_seconds=0, warmup_runs=1, rounds=2)

    (result,) = measure([worker.candidate()], protocol, clock=time.clock, sleep=time.sleep)

    assert result.runs == 6
    assert result.total.p99 == pytest.approx(10)


def test_candidates_take_turns_and_the_order_rotates() -> None:
    time, log = FakeTime(), []
    workers = [Worker(name, time, log) for name in "abc"]
    protocol = Protocol(min_runs=6, min_seconds=0, warmup_runs=0, rounds=3)

    measure([w.candidate() for w in workers], protocol, clock=time.clock, sleep=time.sleep)

    # One cold and two timed runs a turn, after the first run of each.
    assert "".join(log) == "abc" + "aaabbbccc" + "bbbcccaaa" + "cccaaabbb"
    assert time.slept == [protocol.pause_s] * 9


def test_slow_and_fast_candidates_share_the_same_rounds() -> None:
    time, log = FakeTime(), []
    fast = Worker("f", time, log, steady=0.001)
    slow = Worker("s", time, log, steady=0.1)
    protocol = Protocol(min_runs=8, min_seconds=0.8, warmup_runs=1, rounds=4)

    results = measure(
        [fast.candidate(), slow.candidate()], protocol, clock=time.clock, sleep=time.sleep
    )

    # 0.8 s need 800 fast runs but 8 slow ones; both are spread over the same 4 rounds. Rounding
    # of the sum may ask for one turn more.
    assert 800 <= results[0].runs <= 1000
    assert 8 <= results[1].runs <= 10
    assert all(result.seconds >= 0.8 - 1e-9 for result in results)


def test_a_slow_minute_hits_all_candidates_alike() -> None:
    time, log = FakeTime(), []

    class Machine(Worker):
        def _run(self) -> Mapping[str, float] | None:
            # Everything takes three times as long in the second half of the session.
            self.time.now += self.steady * (3.0 if self.time.now > 1.2 else 1.0)
            return None

    workers = [Machine(name, time, log, load_s=0.0) for name in "ab"]
    protocol = Protocol(min_runs=80, min_seconds=0, warmup_runs=0, rounds=40, pause_s=0.0)

    a, b = measure([w.candidate() for w in workers], protocol, clock=time.clock, sleep=time.sleep)

    slow_share_apart = abs(a.seconds - b.seconds) / b.seconds
    assert a.total.p99 == pytest.approx(30)  # it did happen
    assert slow_share_apart < 0.05


def test_stages_are_reported_by_name() -> None:
    time, log = FakeTime(), []
    worker = Worker("a", time, log, stages={"crop": 1.0, "network": 8.0})
    protocol = Protocol(min_runs=4, min_seconds=0, warmup_runs=0, rounds=1)

    (result,) = measure([worker.candidate()], protocol, clock=time.clock, sleep=time.sleep)

    assert result.stages == {"crop": Percentiles(1, 1, 1), "network": Percentiles(8, 8, 8)}


@pytest.mark.parametrize(
    ("runs", "seconds", "kind"),
    [
        (1024, 60.0, "headline"),
        (1023, 60.0, "smoke"),
        (1024, 59.0, "smoke"),
        (4096, 30.0, "smoke"),
    ],
)
def test_only_enough_runs_over_enough_time_make_a_headline(
    runs: int, seconds: float, kind: str
) -> None:
    time, log = FakeTime(), []
    steady = 1.001 * seconds / runs
    worker = Worker("a", time, log, steady=steady)
    protocol = Protocol(min_runs=runs, min_seconds=0, warmup_runs=0, rounds=1)

    (result,) = measure([worker.candidate()], protocol, clock=time.clock, sleep=time.sleep)

    assert result.kind == kind


def test_the_headline_protocol_makes_a_headline() -> None:
    time, log = FakeTime(), []
    worker = Worker("a", time, log, steady=0.025)

    (result,) = measure(
        [worker.candidate()], Protocol.headline(), clock=time.clock, sleep=time.sleep
    )

    assert result.kind == "headline"
    assert result.runs >= 1024
    assert result.seconds >= 60


@pytest.mark.parametrize("odd", [0.5, 0.0001])
def test_one_odd_warm_up_run_does_not_decide_how_long_a_turn_is(odd: float) -> None:
    time, log = FakeTime(), []
    # first, then warm-up, of which the last run is odd
    worker = Worker("a", time, log, costs=[0.01, 0.01, 0.01, 0.01, 0.01, odd], steady=0.01)
    protocol = Protocol(min_runs=8, min_seconds=0.8, warmup_runs=5, rounds=8)
    turns: list[int] = []

    (result,) = measure(
        [worker.candidate()], protocol, clock=time.clock, sleep=time.sleep,
        after_round=lambda rows: turns.append(rows[0].runs),
    )  # fmt: skip

    assert turns[0] == 10  # 0.8 s in 8 rounds of 0.01 s runs
    assert len(result.rounds["total"]) in (8, 9)


def test_nonsense_is_refused() -> None:
    with pytest.raises(InputError, match="at least one"):
        measure([], Protocol())
    twice = Worker("a", FakeTime(), []).candidate()
    with pytest.raises(InputError, match="different names"):
        measure([twice, twice], Protocol())
    with pytest.raises(InputError, match="rounds"):
        Protocol(rounds=0)
    with pytest.raises(InputError, match="negative"):
        Protocol(min_seconds=-1)


@pytest.mark.parametrize("name", ["min_seconds", "pause_s", "max_seconds"])
@pytest.mark.parametrize("value", [-1.0, math.nan, -math.inf])
def test_seconds_that_are_none_are_refused(name: str, value: float) -> None:
    with pytest.raises(InputError, match=rf"{name} .*must not be negative.* not .*{value}"):
        Protocol(**{name: value})  # type: ignore[arg-type]


def test_only_the_longest_may_be_without_end() -> None:
    Protocol(max_seconds=math.inf)
    Protocol(max_seconds=0.0)
    with pytest.raises(InputError, match="must be finite"):
        Protocol(min_seconds=math.inf)


def test_medians_of_the_rounds_are_kept() -> None:
    time, log = FakeTime(), []
    # first, then three turns of (1 cold + 3 timed) runs
    costs = [9.0, 9.0, 0.01, 0.02, 0.06, 9.0, 0.01, 0.03, 0.06, 9.0, 0.01, 0.04, 0.06]
    worker = Worker("a", time, log, costs=costs, stages={"crop": 1.5})
    protocol = Protocol(min_runs=9, min_seconds=0, warmup_runs=0, rounds=3)

    (result,) = measure([worker.candidate()], protocol, clock=time.clock, sleep=time.sleep)

    assert result.rounds["total"] == pytest.approx([20, 30, 40])
    assert result.rounds["crop"] == [1.5, 1.5, 1.5]


def test_what_was_measured_is_told_after_every_round() -> None:
    time, log = FakeTime(), []
    worker = Worker("a", time, log)
    told: list[int] = []

    measure(
        [worker.candidate()], Protocol(min_runs=6, min_seconds=0, rounds=3),
        clock=time.clock, sleep=time.sleep, after_round=lambda rows: told.append(rows[0].runs),
    )  # fmt: skip

    assert told == [2, 4, 6]


def test_a_candidate_that_fails_is_left_out_if_somebody_is_told() -> None:
    time, log = FakeTime(), []
    runs = itertools.count()

    def load_broken() -> Run:
        raise BackendError("refused")

    def breaks_later() -> None:
        if next(runs) > 3:
            raise BackendError("gone")

    candidates = [
        Candidate("never", load_broken),
        Worker("good", time, log).candidate(),
        Candidate("later", lambda: breaks_later),
    ]
    failed: list[str] = []
    protocol = Protocol(min_runs=6, min_seconds=0, warmup_runs=0, rounds=3)

    results = measure(
        candidates, protocol, clock=time.clock, sleep=time.sleep,
        on_failure=lambda what, error: failed.append(f"{what.name}: {error}"),
    )  # fmt: skip

    assert [row.name for row in results] == ["good"]
    assert failed == ["never: refused", "later: gone"]
    with pytest.raises(BackendError, match="refused"):
        measure(candidates, protocol, clock=time.clock, sleep=time.sleep)


def test_a_slow_candidate_stops_short_where_that_is_allowed() -> None:
    time, log = FakeTime(), []
    slow = Worker("s", time, log, steady=3.0)
    protocol = Protocol(min_runs=32, min_seconds=1, warmup_runs=5, rounds=8, max_seconds=8)

    (result,) = measure([slow.candidate()], protocol, clock=time.clock, sleep=time.sleep)

    assert result.runs == 3  # one a turn, until 8 s have passed
    assert result.kind == "smoke"
    assert log.count("s") == 1 + 2 + 3 + 3  # first, warm-up cut short, cold and timed runs
