"""Batches depend on seed and lanes alone: not on processes, loaders, or where a run was stopped."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch

from handmesh.errors import HandMeshError, InputError, MissingExtra
from handmesh_training.lanes import batches, own_lanes
from handmesh_training.sources import Batch


class Counting:
    """Part ``k`` of a lane is two rows of (lane, of, k)."""

    def lane(self, number: int, of: int, start: int) -> Iterator[Batch]:
        for k in itertools.count(start):
            yield {"x": torch.tensor([[number, of, k]] * 2)}


def rows(made: Iterator[Batch], count: int) -> list[list[list[int]]]:
    return [batch["x"].tolist() for batch in itertools.islice(made, count)]


def test_a_batch_is_one_part_of_each_lane_in_order() -> None:
    (first, second) = rows(batches(Counting(), [0, 1, 2], 3), 2)
    assert first == [[0, 3, 0]] * 2 + [[1, 3, 0]] * 2 + [[2, 3, 0]] * 2
    assert second == [[0, 3, 1]] * 2 + [[1, 3, 1]] * 2 + [[2, 3, 1]] * 2


@pytest.mark.parametrize(
    ("lanes", "workers"),
    [
        (2, 1),
        (4, 3),  # as many as divide the lanes: two
        (2, 4),  # one for each lane
    ],
)
def test_loaders_change_nothing(lanes: int, workers: int) -> None:
    own = list(range(lanes))
    here = rows(batches(Counting(), own, lanes, start=5), 3)
    there = rows(batches(Counting(), own, lanes, start=5, workers=workers), 3)
    assert there == here
    assert here[0][0] == [0, lanes, 5]


def test_processes_share_the_lanes_of_one() -> None:
    alone = rows(batches(Counting(), own_lanes(4, 0, 1), 4), 2)
    shared = [rows(batches(Counting(), own_lanes(4, rank, 2), 4), 2) for rank in range(2)]
    for step in range(2):
        together = [row for part in shared for row in part[step]]
        assert sorted(together) == sorted(alone[step])


class Failing:
    """Has one part to give, and then says what is wrong."""

    def __init__(self, error: HandMeshError) -> None:
        self.error = error

    def lane(self, number: int, of: int, start: int) -> Iterator[Batch]:
        yield {"x": torch.zeros(1)}
        raise self.error


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("error", [InputError("too few"), MissingExtra("scipy", "training")])
def test_errors_of_loaders_come_as_they_were_raised(error: HandMeshError, workers: int) -> None:
    made = batches(Failing(error), [0], 1, workers=workers)
    next(made)
    with pytest.raises(type(error)) as caught:
        next(made)
    assert str(caught.value) == str(error)


@pytest.mark.parametrize(("lanes", "world"), [(3, 2), (0, 1), (1, 2)])
def test_lanes_that_cannot_be_shared_are_refused(lanes: int, world: int) -> None:
    with pytest.raises(InputError, match="multiple"):
        own_lanes(lanes, 0, world)
