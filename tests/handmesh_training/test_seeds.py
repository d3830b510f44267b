"""Random streams that never meet, and nobody who seeds one in another way."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

import handmesh_training
from handmesh.errors import InputError
from handmesh_training.seeds import Purpose, generator, sequence


def first(rng: np.random.Generator) -> bytes:
    return rng.bytes(32)


def test_no_two_streams_are_one() -> None:
    places: list[tuple[int, ...]] = [
        (), (0,), (0, 0), (0, 0, 0), (1,), (1, 0), (0, 1), (1 << 32,), (1 << 32, 0), (0, 1 << 32),
        (1, 1), (1 | 1 << 32,), (2**64 - 1,), (2**32 - 1, 2**32 - 1),
    ]  # fmt: skip
    seeds = [0, 1, 5, 1 << 32, 5 << 32, 5 << 64, 2**128 - 1]
    # What lists would mix up: zeros at the end, and large numbers as several small ones.
    assert first(np.random.default_rng([5])) == first(np.random.default_rng([5, 0]))

    drawn = [first(generator(s, p, *at)) for s in seeds for p in Purpose for at in places]

    assert len(set(drawn)) == len(seeds) * len(Purpose) * len(places)
    assert not set(drawn) & {first(np.random.default_rng(seed)) for seed in seeds}


def test_streams_spawned_from_one_meet_no_other() -> None:
    spawned = [first(child) for child in generator(3, Purpose.BLOCK, 0).spawn(64)]
    blocks = [first(generator(3, Purpose.BLOCK, number)) for number in range(1000)]
    assert len({*spawned, *blocks}) == 1064


def test_the_same_stream_is_the_same_again() -> None:
    one, two = (generator(7, Purpose.POOL, 2).random(5) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    number = np.int64(2)  # indices come out of arrays
    np.testing.assert_array_equal(generator(7, Purpose.POOL, number).random(5), one)
    assert sequence(7, Purpose.POOL, 2).entropy == 7


@pytest.mark.parametrize("arguments", [(-1,), (1 << 128,), (0, -1), (0, 1 << 64)])
def test_numbers_out_of_range_are_refused(arguments: tuple[int, ...]) -> None:
    seed, *place = arguments
    with pytest.raises(InputError, match=r"expected a number from 0 to 2\^"):
        generator(seed, Purpose.BLOCK, *place)


def test_nobody_else_seeds_a_generator() -> None:
    root = Path(handmesh_training.__file__).parent
    makers = {"default_rng", "SeedSequence", "RandomState", "PCG64", "Philox"}
    found = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and getattr(node.func, "attr", getattr(node.func, "id", "")) in makers
    }
    assert found == {"seeds.py"}
