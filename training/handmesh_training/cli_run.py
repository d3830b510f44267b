"""From the options of `handmesh train` to a run, and through its stages."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from handmesh.errors import CheckpointError, InputError
from handmesh.graph import Topology
from handmesh.nn import LightConfig, MeshConfig, PaperConfig, StageConfig

from . import cli_detector, parallel, stages
from .augment import Augmentation
from .checkpoint import FILE, read_checkpoint, weights_file
from .cli_options import EVALUATION_SEED, check_folder
from .cropped_set import CroppedSet, SampleSource, build
from .cropped_stream import CroppedSettings, adapting
from .datasets import parse_dataset
from .detection.run import STAGE as DETECTOR
from .losses import PAPER, LossWeights
from .photos import check_photo_sets, trained_on
from .recipe import RECIPES, Recipe
from .rendered import HandRenderer, RenderSettings
from .shards import ShardSet
from .stages import STAGES, Run
from .stand_in import RenderedSamples
from .stream_settings import StreamSettings
from .train import TrainSettings
from .validate import held_out
from .weak_losses import WITH_POSE, WITHOUT_POSE, WeakWeights

FINE_TUNING = (stages.FINE_TUNED, stages.PSEUDO, stages.WEAK)
REAL_MARGIN, REAL_DEPTH_PX = 1.9, 64
# Of each set that is adapted to, one hand in so many, or so many, are watched, not trained on.
HELD_OUT_ONE_IN, HELD_OUT = 20, 256


def train(options: argparse.Namespace) -> int:
    """What `handmesh train` does with its options.

    Raises:
        InputError: options that do not go together, or data that cannot be trained on.
        CheckpointError: the folder holds a run and nothing is said of it, or none to go on with.
        BackendUnavailable: a GPU that is not there. And what the stages raise.
    """
    # A detector is taught by photos of any hands.
    check_photo_sets(options.photos, bool if options.stage == DETECTOR else trained_on)
    if options.stage == DETECTOR:
        _check_folder(options, (DETECTOR,))
        return cli_detector.train(options, _recipe(options))
    wanted = wanted_stages(options)
    _check_folder(options, wanted)
    with parallel.process_group(options.device) as device:
        run = _run_of(options, wanted, device)
        functions: dict[str, Callable[[Run], object]] = {
            stages.HEATMAPS: stages.train_heatmaps,
            stages.POSE: stages.train_pose_regressor,
            stages.FULL: stages.train_fully,
            stages.FINE_TUNED: stages.fine_tune_heatmaps,
            stages.PSEUDO: stages.make_pseudo,
            stages.WEAK: stages.train_weakly,
        }
        for stage in wanted:
            functions[stage](run)
            if stage == stages.FULL:  # what follows starts from it
                run = replace(run, start_from=None)
    return 0


def wanted_stages(options: argparse.Namespace) -> tuple[str, ...]:
    """The stages to run; of all, those that the head has."""
    if options.stage != "all":
        return (options.stage,)
    without = {
        "mesh": (),
        "parametric": ("pose",),
        "transfer": tuple(stage for stage in STAGES if stage != "full"),  # the trunk is fixed
    }.get(options.head, ("pose", "pseudo", "weak"))
    if not options.pseudo:
        without += ("pseudo",)
    return tuple(stage for stage in STAGES if stage not in without)


def _results(options: argparse.Namespace, wanted: tuple[str, ...]) -> list[Path]:
    """What these stages have left in the folder."""
    names = {stages.PSEUDO: (stages.PSEUDO_FILE, "meshes.npz")}  # the latter of an earlier handmesh
    files = [options.out / stage / name for stage in wanted for name in names.get(stage, (FILE,))]
    return [file for file in files if file.exists()]


def _check_folder(options: argparse.Namespace, wanted: tuple[str, ...]) -> None:
    """Nobody goes on with a run, or begins one, without knowing."""
    there = _results(options, wanted)
    if there and not options.resume:
        of = ", ".join(dict.fromkeys(file.parent.name for file in there))
        raise CheckpointError(
            f"{options.out} holds a run of {of} already: --resume goes on with it; for a new one "
            "use another folder"
        )
    if options.resume and not _results(options, (*STAGES, DETECTOR)):
        raise CheckpointError(
            f"there is no run in {options.out} to go on with, for no checkpoint was written there: "
            "leave --resume out"
        )
    check_folder("--out", options.out)


def _run_of(options: argparse.Namespace, wanted: tuple[str, ...], device: str) -> Run:
    config, recipe = _config(options), _recipe(options)
    adapting = any(stage in FINE_TUNING for stage in wanted)
    stream = _stream(options, config, adapting)
    # Runs are watched on the same hands, however many partners they train with.
    look = replace(stream.render, crop_px=config.input_size, margin=1.5, empty=0.0, partners=None)
    count = 32 if options.smoke else 512
    settings = TrainSettings(
        steps=8 if options.smoke else options.steps,
        recipe=recipe,
        seed=options.seed,
        lanes=options.lanes or _usual_lanes(options),
        report=4 if options.smoke else 100,
        evaluate=8 if options.smoke else 1000,  # and at the end
    )
    run = Run(
        folder=options.out,
        config=config,
        head=options.head,
        settings=settings,
        pose_steps=32 if options.smoke else 1200,
        weights=PAPER if _losses(options) == "paper" else LossWeights(),
        weak=_weak(options),
        stream=stream,
        device=device,
        workers=options.workers,
        draw_on_device=(
            options.device != "cpu" if options.draw_on_device is None else options.draw_on_device
        ),
        start_from=None if options.start_from is None else weights_file(options.start_from),
        minutes=options.minutes,
    )
    run.lane_stream()  # too few lanes' crops are told before anything is rendered
    # Rendered before sets are cut, which takes long: a folder may not hold what it should.
    validation = {}
    if options.stage not in ("pose", "pseudo"):
        validation["rendered"] = HandRenderer(look, EVALUATION_SEED).chunk(0, count)
    stages.check_pretrained(run, wanted)
    real = _real(options, config, stream.render) if adapting else None
    if real is not None and real.held_out:
        watched = held_out(CroppedSet(real.folder), real.held_out, config.input_size)
        if len(watched):  # hands with all their joints
            validation["real"] = watched
    return replace(run, real=real, validation=validation)


def _weak(options: argparse.Namespace) -> WeakWeights:
    weak = WITH_POSE if options.joints_3d else WITHOUT_POSE
    return replace(
        weak,
        depth=weak.depth if options.depth else 0.0,
        pseudo_mesh=weak.pseudo_mesh if options.pseudo else 0.0,
    )


def _losses(options: argparse.Namespace) -> str:
    """The paper's recipe is not the paper's with other losses."""
    if options.losses is None:
        return "paper" if options.recipe == "paper" else "tuned"
    return str(options.losses)


def _usual_lanes(options: argparse.Namespace) -> int:
    """Those of the run that goes on; else one for each loader."""
    for file in _results(options, tuple(stage for stage in STAGES if stage != "pseudo")):
        return int(read_checkpoint(file, resumed=True)["lanes"])
    drawn_elsewhere = options.device == "cpu" or options.draw_on_device is False
    return parallel.world_size() * (max(1, options.workers) if drawn_elsewhere else 1)


def _config(options: argparse.Namespace) -> MeshConfig:
    if not options.smoke:
        whole: MeshConfig = LightConfig() if options.network == "light" else PaperConfig()
        size = _size_of_run(options) if options.input_size is None else options.input_size
        return whole if size is None else replace(whole, input_size=size)
    if options.input_size is not None:
        raise InputError("--smoke trains a tiny network of 64 px: leave --input-size out")
    if options.network == "paper":
        return PaperConfig(
            input_size=64,
            features=16,
            hourglass_depth=2,
            residuals_per_position=1,
            encoder_levels=2,
            latent=32,
        )
    widths = (8, 16, 16, 24)
    return LightConfig(
        input_size=64,
        stem_channels=8,
        stages=tuple(StageConfig("fused", width, 1, 2.0) for width in widths),
        pyramid_channels=(16, 16, 16),
        pyramid_depth=(1, 1, 1),
        latent=32,
    )


def _size_of_run(options: argparse.Namespace) -> int | None:
    """The crops of what the folder holds of this network already; its last stage's."""
    trained = tuple(stage for stage in STAGES if stage not in (stages.POSE, stages.PSEUDO))
    for file in reversed(_results(options, trained)):
        config = read_checkpoint(file, resumed=True)["config"]
        if config.get("network") == options.network:
            return int(config["input_size"])
    return None


def _recipe(options: argparse.Namespace) -> Recipe:
    recipe = RECIPES[options.recipe]
    if options.rate is not None:
        recipe = replace(recipe, learning_rate=options.rate, fine_tuning_rate=options.rate)
    batch = 8 if options.smoke else options.batch
    if batch is not None:
        recipe = replace(recipe, batch=batch)
    if options.decay is not None:
        if recipe.schedule != "trapezoid" or not 0 <= options.decay <= options.steps:
            raise InputError(
                "--decay takes --recipe prolongable or muon, and at most --steps "
                f"({options.steps}) batches"
            )
        recipe = replace(recipe, decay=options.decay / options.steps)
    return recipe


def _stream(options: argparse.Namespace, config: MeshConfig, adapting: bool) -> StreamSettings:
    for name in options.data:  # a wrong one is told here, not by a worker later
        parse_dataset(name)
    side = config.input_size
    render = RenderSettings(
        options.skins,
        options.environments,
        options.backgrounds,
        crop_px=side * 5 // 4,
        partners=options.partners,
    )
    if options.shards is not None:
        if options.partners is not None:
            raise InputError("--partners goes with hands that are rendered; those of --shards are")
        stored = ShardSet(options.shards).manifest  # all of it, before the first stage
        render = replace(render, crop_px=stored.crop_px, margin=stored.margin)
    reuse = 3.0 if options.shards is None else 1.0
    settings = StreamSettings(
        photos=tuple(options.photos),
        datasets=() if adapting else tuple(options.data),
        shards=options.shards,
        reuse=reuse if options.reuse is None else options.reuse,
        render=render,
        augment=Augmentation(input_size=side, stored_margin=render.margin),
    )
    return replace(settings, batch=8, pool=64, chunk=32) if options.smoke else settings


def _real(options: argparse.Namespace, config: MeshConfig, look: RenderSettings) -> CroppedSettings:
    """The sets to adapt to, cut to hands; for a smoke run without sets, rendered hands."""
    sources: list[SampleSource] = [parse_dataset(name) for name in options.data]
    if not sources and options.smoke:
        sources = [RenderedSamples(look, EVALUATION_SEED + 1, 32)]
    if not sources:
        raise InputError(f"{options.stage} takes labelled data: give --data LAYOUT:SPLIT:DIR")
    folder = options.out / "real"
    if parallel.rank() == 0:
        options.out.mkdir(parents=True, exist_ok=True)
        build(
            sources, folder, config.input_size * 5 // 4, REAL_MARGIN, REAL_DEPTH_PX,
            Topology.default().vertex_count, options.limit, options.joints_3d,
        )  # fmt: skip
    parallel.wait_for_all()
    augment = adapting(config.input_size, REAL_MARGIN)
    kept_back = CroppedSet(folder).last_groups(HELD_OUT_ONE_IN, HELD_OUT)
    return CroppedSettings(folder, augment=augment, held_out=tuple(kept_back.tolist()))
