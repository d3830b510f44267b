"""The bookkeeping of streams: every sample once, in one worker, drawn as often as planned."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from handmesh.errors import InputError
from handmesh_training.pool import Pool


def play(pool: Pool, batches: int) -> tuple[Counter[int], list[int], list[list[int]]]:
    """Draws of each sample, samples taken in, and the samples of each batch, by a plain dict."""
    held = pool.held()
    content = dict(zip(held.rows.tolist(), held.numbers.tolist(), strict=True))
    draws: Counter[int] = Counter()
    taken: list[int] = []
    made = []
    for _ in range(batches):
        fills, rows = pool.next()
        for fill in fills:
            content |= dict(zip(fill.rows.tolist(), fill.numbers.tolist(), strict=True))
            taken += fill.numbers.tolist()
        made.append([content[row] for row in rows.tolist()])
        draws.update(made[-1])
    return draws, taken, made


@pytest.mark.parametrize("reuse", [1.0, 1.5, 2.3, 3.0])
def test_each_sample_is_drawn_as_often_as_planned(reuse: float) -> None:
    pool = Pool(size=64, chunk=8, batch=6, reuse=reuse, seed=1)
    draws, taken, made = play(pool, 400)
    waiting = set(pool.held().numbers.tolist())

    assert taken == list(range(len(taken)))
    gone = [number for number in taken if number not in waiting]
    assert len(gone) > 300
    counts = np.array([draws[number] for number in gone])
    assert set(counts) <= {int(np.floor(reuse)), int(np.ceil(reuse))}
    assert counts.mean() == pytest.approx(reuse, abs=0.08)
    assert all(len(set(batch)) == 6 for batch in made), "no sample twice in a batch"


def test_workers_share_all_samples_without_overlap() -> None:
    taken = []
    for worker in range(6):  # two ranks of three workers, say
        _, own, _ = play(Pool(32, 8, 4, 1.0, 0, worker, 6), 100)
        taken.append(own)

    whole = min(len(own) for own in taken) // 8 * 8
    together = sorted(number for own in taken for number in own[:whole])
    assert together == list(range(6 * whole))


def test_the_pool_starts_small_fills_up_and_mixes() -> None:
    pool = Pool(size=512, chunk=16, batch=8, reuse=2.0, seed=0)
    _, taken, _ = play(pool, 1)
    assert len(taken) == 32, "two chunks suffice to begin with"

    pool.skip(400)
    for _ in range(100):
        pool.next()
        assert 512 - 16 - 8 < len(pool.held().rows) <= 512
    # A batch is drawn from all of the pool, not from what came in last.
    _, _, made = play(pool, 1)
    assert max(made[0]) - min(made[0]) > 200


def test_skipping_leaves_the_state_of_having_drawn() -> None:
    arguments = (64, 8, 6, 1.5, 7, 2, 5)
    one, two = Pool(*arguments), Pool(*arguments)
    play(one, 57)
    two.skip(57)

    np.testing.assert_array_equal(one.held().rows, two.held().rows)
    np.testing.assert_array_equal(one.held().numbers, two.held().numbers)
    for _ in range(20):
        (fills, rows), (others, other_rows) = one.next(), two.next()
        np.testing.assert_array_equal(rows, other_rows)
        assert [f.numbers.tolist() for f in fills] == [f.numbers.tolist() for f in others]


def test_what_is_held_is_told_by_number() -> None:
    """Or filling a pool again draws each block of samples many times over."""
    pool = Pool(6144, 64, 96, 3, seed=1)
    pool.skip(400)
    held = pool.held().numbers
    assert len(held) > 5500
    assert (np.diff(held) > 0).all()
    # Rows go with their numbers: as what came in says.
    again, content = Pool(6144, 64, 96, 3, seed=1), {}
    for _ in range(400):
        for fill in again.next()[0]:
            content |= dict(zip(fill.rows.tolist(), fill.numbers.tolist(), strict=True))
    assert [content[row] for row in pool.held().rows.tolist()] == held.tolist()
    chunks = [np.unique(held[first : first + 64] // 64) for first in range(0, len(held), 64)]
    assert sum(map(len, chunks)) < 1.5 * len(np.unique(held // 64))


def test_workers_and_seeds_draw_differently() -> None:
    batches = [
        Pool(64, 8, 6, 1.0, seed, worker, 2).next()[1] for seed in (0, 1) for worker in (0, 1)
    ]
    assert len({batch.tobytes() for batch in batches}) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 15}, "two chunks of 8"),
        ({"batch": 25}, "a batch of 25"),
        ({"batch": 0}, "a batch of 0"),
        ({"chunk": 0}, "chunks of 0"),
        ({"reuse": 0.9}, "at least 1"),
    ],
)
def test_numbers_that_cannot_work_are_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Pool(**{"size": 32, "chunk": 8, "batch": 6, "reuse": 1.0, "seed": 0, **change})


@pytest.mark.parametrize("reuse", [0.9, float("nan"), float("inf")])
def test_draws_that_are_no_number_above_one_are_refused(reuse: float) -> None:
    with pytest.raises(InputError, match="reuse must be at least 1 and finite"):
        Pool(size=64, chunk=8, batch=6, reuse=reuse, seed=1)
