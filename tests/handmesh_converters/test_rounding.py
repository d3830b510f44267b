"""Rounding to int8: what lies on the grid, and what it changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from handmesh.backends import RawOutput
from handmesh.bundle import Bundle, shipped
from handmesh.errors import ExportError
from handmesh.verification import read_reference
from handmesh_converters import rounding
from handmesh_converters.export import CALIBRATION, load_bundle
from handmesh_converters.fold import fold
from handmesh_converters.parity import TOLERANCES, measure, network_outputs
from handmesh_converters.rounding import round_to_int8


class _Small(nn.Module):
    """Crops to features through each kind of layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.conv = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(16, 16, 3, groups=16)
        self.plain = nn.Linear(16, 8, bias=False)
        self.out = nn.Linear(8, 6)

    def forward(self, image: Tensor) -> Tensor:
        x = self.conv(image.permute(0, 3, 1, 2).float() / 255).relu()
        y: Tensor = self.out(self.plain(self.depthwise(x).mean((2, 3))))
        return y


@pytest.fixture
def network() -> _Small:
    return _Small().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def pictures() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3), dtype=np.uint8)


def test_weights_are_multiples_of_their_scales(
    network: _Small, pictures: NDArray[np.uint8]
) -> None:
    before = {name: p.clone() for name, p in network.named_parameters()}

    scales = round_to_int8(network, pictures, size=1, keep=("out",))

    assert scales.keys() == {"conv", "plain"}
    for name, scale in scales.items():
        weight = network.get_parameter(f"{name}.weight").flatten(1)
        steps = weight / scale[:, None]
        torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-4)
        assert steps.abs().max() <= 127.001
        largest = before[f"{name}.weight"].flatten(1).abs().amax(1)
        torch.testing.assert_close(scale, largest / 127)
    for name in ("depthwise.weight", "out.weight", "out.bias"):
        assert torch.equal(network.get_parameter(name), before[name])


def test_outputs_move_less_than_by_rounding_each_weight(
    network: _Small, pictures: NDArray[np.uint8]
) -> None:
    fresh = torch.from_numpy(pictures[::-1, ::-1].copy())
    wanted, plain = network(fresh), _Small().eval()
    with torch.no_grad():
        for module in (plain.conv, plain.plain, plain.out):
            flat = module.weight.flatten(1)
            scale = flat.abs().amax(1, keepdim=True) / 127
            module.weight.copy_(((flat / scale).round() * scale).view_as(module.weight))

    round_to_int8(network, pictures, size=1)

    better, worse = ((n(fresh) - wanted).square().mean().sqrt() for n in (network, plain))
    assert 0 < better < 0.5 * worse


def test_strong_inputs_are_rounded_first() -> None:
    """What is rounded first lies where it would alone: nothing was moved to make up for it."""
    rng = np.random.default_rng(4)
    strength = torch.tensor([1.0, 9.0, 3.0, 0.2, 5.0], dtype=torch.float64)
    shared = torch.from_numpy(rng.normal(size=(400, 1)))
    x = (torch.from_numpy(rng.normal(size=(400, 5))) + shared) * strength
    weight = torch.from_numpy(rng.normal(size=(64, 5)))
    scale = weight.abs().amax(1) / 7
    nearest = (weight / scale[:, None]).round().clamp(-127, 127) * scale[:, None]

    rounded = rounding._round_columns(weight, scale, x.T @ x / len(x), 5)

    alone = (rounded - nearest).abs().amax(0) < 1e-9
    assert alone.tolist() == [False, True, False, False, False], "the second is the strongest"


def test_channels_without_weights_stay_empty(network: _Small, pictures: NDArray[np.uint8]) -> None:
    network.plain.weight[2] = 0

    scales = round_to_int8(network, pictures, size=1)

    assert scales["plain"][2] == 1
    assert not network.plain.weight[2].any()


def test_small_layers_are_left(network: _Small, pictures: NDArray[np.uint8]) -> None:
    assert round_to_int8(network, pictures, size=200).keys() == {"conv"}


def test_crops_are_needed(network: _Small) -> None:
    with pytest.raises(ExportError, match="got none"):
        round_to_int8(network, np.zeros((0, 16, 16, 3), np.uint8), size=1)


@pytest.mark.parametrize(
    ("size", "kinds", "keep"),
    [
        pytest.param(100_000, (nn.Linear, nn.Conv2d), ("network.head.joints",), id="tflite"),
        pytest.param(1 << 17, (nn.Linear,), (), id="coreml"),
    ],
)
def test_the_shipped_network_bears_it_on_crops_that_it_was_not_calibrated_on(
    size: int, kinds: tuple[type[nn.Module], ...], keep: tuple[str, ...]
) -> None:
    """Both formats' layers; else `handmesh export light --precision int8` is refused."""
    bundle = Bundle.load(shipped()["light"])
    network = load_bundle(bundle)
    crops = read_reference(bundle)[0]
    others = crops[1::2]
    twin = fold(network)
    round_to_int8(twin, crops[CALIBRATION], size, keep, kinds)

    def run(images: NDArray[np.uint8]) -> RawOutput:
        with torch.no_grad():
            return RawOutput(*(part.numpy() for part in twin(torch.from_numpy(images.copy()))))

    expected = network_outputs(network, others)
    found = measure(run, "torch", others, expected, bundle.topology.bone_ratios)
    assert found.crop_px.worst > 0.05, "nothing was rounded"
    found.check(TOLERANCES["int8"])
