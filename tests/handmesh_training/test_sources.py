"""What the networks are given of a batch's pictures."""

from __future__ import annotations

import torch

from handmesh_training.sources import to_input


def test_to_input() -> None:
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 1, 1, 3).repeat(2, 4, 4, 1)

    found = to_input(images)

    assert found.shape == (2, 3, 4, 4)
    assert found.dtype == torch.float32
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found[0, :, 0, 0], torch.tensor([-0.5, -0.3, 0.5]))
    assert images.unique().tolist() == [0, 51, 255], "the pictures are left alone"
