"""The sub-command `handmesh info`: a bundle, what runs it here, and the layers of its network."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .cli_shared import OK
from .errors import BundleError, MissingExtra

if TYPE_CHECKING:
    from .bundle import Bundle

__all__ = ["add_info"]


def add_info(commands: Any) -> None:
    """Add `info` to argparse's sub-parsers."""
    parser = commands.add_parser(
        "info",
        help="a trained model, what runs it here, and its layers",
        description="Says what a bundle holds, under which licences, and which backends run it "
        "here, and why others do not; then, where torch is installed, the layers of its network "
        "(not of detectors) with their parameters and operations.",
    )
    parser.add_argument("bundle", nargs="?", metavar="BUNDLE", help="default: the shipped one")
    parser.add_argument("--device", metavar="NAME", help="which backends run it there, as cuda")
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16", "int8"),
        help="which backends have it in that precision",
    )
    parser.add_argument(
        "--network",
        choices=("light", "paper"),
        help="the layers of that one alone, as it is by default",
    )
    parser.add_argument(
        "--depth",
        type=_depth,
        metavar="N",
        help="sum up layers below this depth, from 1 (default: all)",
    )
    parser.set_defaults(run=_info)


def _info(args: argparse.Namespace) -> int:
    from .bundle import Bundle

    if args.network is not None:
        print(_layers({"network": args.network}, args.depth))
        return OK
    bundle = Bundle.load(args.bundle)
    print("\n".join(_lines(bundle, args)))
    if bundle.is_detector:
        print("layers: not told of detectors")
        return OK
    try:
        print(f"\n{_layers(bundle.manifest['config'], args.depth)}")
    except MissingExtra as error:  # all else was told without it
        print(f"layers: not told: {error}")
    return OK


def _depth(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, not {text!r}")
    return int(text)


def _lines(bundle: Bundle, args: argparse.Namespace) -> Iterator[str]:
    from . import backends
    from .bundle import shipped

    manifest = bundle.manifest
    yield f"{bundle.name}: {bundle.folder}"
    if args.bundle is None:  # nobody asked for this one
        for other in sorted(shipped().keys() - {bundle.name}):
            yield f"of {bundle.name}; `handmesh info {other}` for {other}, which ships too"
    size = bundle.image_size
    yield f"network {manifest['network']}, pictures of {size} x {size} pixels"
    for what, licence in manifest["licences"].items():
        yield f"licence of {what}: {licence}"
    yield from _figures(manifest["provenance"].get("figures"))
    for name in backends.names():
        stored = ""
        if name in bundle.artifacts:
            stored = f" ({bundle.precision_of(name)}, {bundle.size_of(name) / 2**20:.1f} MiB)"
        yield f"{name}{stored}: {_damage(name, bundle) or _place(name, bundle, args)}"


def _figures(figures: Any) -> Iterator[str]:
    """How good the network is, where its manifest says so: a line for each set it was tried on."""
    if not isinstance(figures, dict):
        return
    for name, found in figures.items():
        if isinstance(found, dict):
            told = ", ".join(f"{what} {value}" for what, value in found.items())
            yield f"figures of {name}: {told}"
        else:
            yield f"figures, {name}: {found}"


def _damage(name: str, bundle: Bundle) -> str | None:
    """What is wrong with a backend's artifact, on any machine, as far as sizes tell."""
    if name not in bundle.artifacts:
        return None
    try:
        bundle.check_sizes(name)
    except BundleError as error:
        return f"damaged: {error}"
    return None


def _place(name: str, bundle: Bundle, args: argparse.Namespace) -> str:
    from . import backends

    reason = backends.unavailable(name, bundle, args.device, args.precision)
    return "can run here" if reason is None else f"not here: {reason}"


def _layers(config: dict[str, Any], depth: int | None) -> str:
    from .graph import Topology

    try:
        from .nn import build, from_dict
        from .nn.summary import describe
    except ModuleNotFoundError as cause:
        if cause.name is None or cause.name.startswith(__package__):
            raise
        raise MissingExtra(cause.name, "torch") from cause
    try:
        summary = describe(build(from_dict(config), Topology.default()))
    except Exception as cause:  # layers refuse impossible sizes in whatever way
        raise BundleError(
            f"the `config` of the bundle's manifest describes no network that can be built: {cause}"
        ) from cause
    return summary.render(depth)
