"""Random streams: one for each seed, purpose and place, none of which meets another.

A list is no safe seed. NumPy pads it with zeros, so that ``default_rng([5])`` and
``default_rng([5, 0])`` are one stream, and whoever numbers lists elsewhere may hit the same one.
Here the seed alone is the entropy, and purpose and place are the spawn key, which NumPy keeps
apart from it.
"""

from __future__ import annotations

from enum import IntEnum, unique

import numpy as np

from handmesh.errors import InputError

SEED_BITS, PLACE_BITS, WORD_BITS = 128, 64, 32


@unique
class Purpose(IntEnum):
    """What a stream is for, and which numbers tell its place. A number is never used again."""

    BLOCK = 1  # rendered samples: block
    SKINS = 2
    ENVIRONMENTS = 3
    POOL = 4  # which samples a pool draws: worker
    BATCH = 5  # photos and augmentation of a batch: worker, batch
    OTHERS = 6  # photos of a batch on a device: rank, batch
    AUGMENTATION = 7  # of a batch on a device: rank, batch
    EPOCH = 8  # order of a set on disk: epoch
    POSE_REGRESSOR = 9  # hands that it is trained on: lane, lanes, chunk
    REFERENCE = 10  # crops that travel with a bundle
    UNSEEN_MESHES = 11  # hands that the pose regressor is measured on
    CROPPED_EPOCH = 12  # order of a set of cropped hands: epoch
    CROPPED_BATCH = 13  # augmentation of a batch of them: lane, batch
    SENSOR = 14  # what a depth camera makes of a rendered hand: sample
    CAMERAS = 15  # fields of view of a report's cameras
    COMPOSED = 16  # scenes to find hands in: lane, batch, place in the batch
    GROUNDS = 17  # views that they stand before
    GRAIN = 18  # that scenes are given parts of
    PAIRS = 19  # which two photos stand side by side
    EDGES = 20  # hands that the lengths of edges are bounded by
    PARTNERS = 21  # second hands beside rendered ones: block
    WORSENED = 22  # lines and borders by which pictures of a report are made worse
    LIT = 23  # where stripes and dapples of light fall on them


def sequence(seed: int, purpose: Purpose, *place: int) -> np.random.SeedSequence:
    """What seeds a stream.

    Args:
        seed: from 0, of at most 128 bits. purpose: of the stream.
        place: numbers from 0 to 2^64 - 1; always as many for one purpose.

    Raises:
        InputError: a number out of range.
    """
    for name, value, bits in (
        ("seed", seed, SEED_BITS),
        *(("place", n, PLACE_BITS) for n in place),
    ):
        if not 0 <= value < 1 << bits:
            raise InputError(f"{name}: expected a number from 0 to 2^{bits} - 1, got {value}")
    # Each number as two words: NumPy would take one or two, and (2^32) would be (0, 1).
    words = [(int(n) >> shift) & 0xFFFFFFFF for n in place for shift in (0, WORD_BITS)]
    return np.random.SeedSequence(int(seed), spawn_key=(int(purpose), *words))


def generator(seed: int, purpose: Purpose, *place: int) -> np.random.Generator:
    """The stream of a seed, purpose and place. Raises as `sequence`."""
    return np.random.default_rng(sequence(seed, purpose, *place))
