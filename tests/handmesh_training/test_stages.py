"""The paper's stages in a row: each starts from what those before it left, or says so."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from handmesh.bundle import DETECTOR, Bundle
from handmesh.errors import BundleError, CheckpointError, InputError
from handmesh.graph import Topology
from handmesh.nn import LightConfig, save_weights
from handmesh_training import stages
from handmesh_training.augment import Augmentation
from handmesh_training.checkpoint import load_network
from handmesh_training.cropped_set import CroppedSet, build
from handmesh_training.cropped_stream import CroppedSettings
from handmesh_training.heads import build_network
from handmesh_training.meshes import unseen_meshes
from handmesh_training.pseudo_meshes import load_pseudo_meshes, origin_of
from handmesh_training.recipe import Recipe
from handmesh_training.rendered import RenderSettings
from handmesh_training.rendering import SkinSet
from handmesh_training.stages import Run, starting_from
from handmesh_training.stand_in import RenderedSamples
from handmesh_training.stream_settings import StreamSettings
from handmesh_training.train import Trainer, TrainSettings

torch.set_num_threads(1)
STEPS = 2
Stages = Callable[[Callable[[Run], Any]], None]
LOOK = RenderSettings(crop_px=72)


@pytest.fixture(scope="module")
def skins() -> list[SkinSet]:
    """What made-up skins there are, once some have been made."""
    return []


@pytest.fixture(autouse=True)
def quick(quick_surroundings: None, skins: list[SkinSet], monkeypatch: pytest.MonkeyPatch) -> None:
    """Many renderers are made here: they share their skins. And few meshes are held out."""
    plain = SkinSet.procedural

    def procedural(*arguments: Any) -> SkinSet:
        if not skins:
            skins.append(plain(*arguments))
        return skins[0]

    monkeypatch.setattr(SkinSet, "procedural", procedural)
    monkeypatch.setattr(stages, "unseen_meshes", lambda seed: unseen_meshes(seed, 8))


@pytest.fixture
def run(tiny_config: LightConfig, tmp_path: Path) -> Run:
    """Of two batches a stage, on rendered hands; real ones are cut when a stage wants them."""
    real = CroppedSettings(
        tmp_path / "real", augment=Augmentation(input_size=64, stored_margin=1.9)
    )
    recipe = Recipe(batch=4, warmup=1, average=None)
    return Run(
        folder=tmp_path / "run",
        config=tiny_config,
        settings=TrainSettings(STEPS, recipe, evaluate=1000, tensorboard=False),
        pose_steps=3,
        stream=StreamSettings(
            batch=4, pool=16, chunk=8, render=LOOK, augment=Augmentation(input_size=64)
        ),
        real=real,
        workers=0,
    )


@pytest.fixture(scope="module")
def _kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs that `after` copies, by stage."""
    return tmp_path_factory.mktemp("stages")


@pytest.fixture
def after(run: Run, _kept: Path) -> Stages:
    """Puts the run where a stage leaves it; many tests begin there, and it is run for the first."""

    def put(stage: Callable[[Run], Any]) -> None:
        folder = _kept / stage.__name__
        if not folder.exists():
            stage(replace(run, folder=folder))
        shutil.copytree(folder, run.folder)

    return put


@pytest.fixture
def real(run: Run, _kept: Path) -> CroppedSet:
    """The test's own copy of crops that the first test has cut."""
    assert run.real is not None
    folder = _kept / "real"
    if not folder.exists():
        samples, count = RenderedSamples(LOOK, 9, 8), Topology.default().vertex_count
        build([samples], folder, 72, 1.9, 32, count)
    return CroppedSet(shutil.copytree(folder, run.real.folder))


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, torch.Tensor]]:
    """Weights before the first step of every stage that is run, by stage."""
    seen: dict[str, dict[str, torch.Tensor]] = {}
    plain = Trainer.run

    def watched(self: Trainer, *arguments: Any) -> None:
        state = self.network.state_dict()
        seen[self.task.name] = {name: value.clone() for name, value in state.items()}
        plain(self, *arguments)

    monkeypatch.setattr(Trainer, "run", watched)
    return seen


def weights(run: Run, stage: str) -> dict[str, torch.Tensor]:
    """What a stage left."""
    return load_network(run.checkpoint(stage)).network.state_dict()


def equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor], *tops: str) -> bool:
    """Whether all weights under those names are the same; without names, all."""
    names = [name for name in one if not tops or name.startswith(tops)]
    assert names
    return one.keys() == two.keys() and all(torch.equal(one[n], two[n]) for n in names)


MAPS, REGRESSOR = ("backbone", "pyramid", "heatmaps"), "head.pose_regressor"


def test_each_stage_starts_from_those_before_it(
    run: Run, real: CroppedSet, starts: dict[str, dict[str, torch.Tensor]]
) -> None:
    torch.manual_seed(run.settings.seed)
    fresh = build_network(run.config, Topology.default(), "mesh").state_dict()
    stages.train_heatmaps(run)
    maps = weights(run, "heatmaps")
    assert equal(starts["heatmaps"], fresh)
    assert not equal(maps, fresh, *MAPS)
    rest = [name for name in fresh if not name.startswith(MAPS)]
    assert all(torch.equal(maps[name], fresh[name]) for name in rest)

    stages.train_pose_regressor(run)
    pose = weights(run, "pose")
    assert equal(starts["pose"], fresh)
    assert not equal(pose, fresh, REGRESSOR)
    assert equal(pose, fresh, *MAPS)
    assert load_network(run.checkpoint("pose")).step == 3

    stages.train_fully(run)
    full = weights(run, "full")
    assert equal(starts["full"], maps, *MAPS)
    assert equal(starts["full"], pose, REGRESSOR)
    assert equal(starts["full"], fresh, "head.decoder", "encode", "presence")
    assert equal(full, pose, REGRESSOR)
    assert not equal(full, starts["full"], "head.decoder")

    stages.fine_tune_heatmaps(run)
    tuned = weights(run, "fine-tune-heatmaps")
    assert equal(starts["fine-tune-heatmaps"], full)
    assert not equal(tuned, full, *MAPS)
    assert equal(tuned, full, "head", "encode")

    stages.train_weakly(run)
    weak = weights(run, "weak")
    assert equal(starts["weak"], tuned)
    assert not equal(weak, tuned, "head.decoder")
    assert equal(weak, pose, REGRESSOR)

    # The pseudo meshes came of themselves, from the pretrained network, not the fine-tuned one.
    before = run.pseudo_path.read_bytes()
    meshes = load_pseudo_meshes(run.pseudo_path, real)
    assert np.abs(meshes).max() > 0
    run.pseudo_path.unlink()
    assert stages.make_pseudo(run) == run.pseudo_path
    np.testing.assert_array_equal(load_pseudo_meshes(run.pseudo_path, real), meshes)
    run.checkpoint("full").unlink()
    run.pseudo_path.write_bytes(before)
    assert stages.make_pseudo(run).read_bytes() == before, "what is there is kept"
    # An earlier handmesh left an .npz: with the weights gone, these are all the meshes there are.
    set_sha256, weights_sha256 = origin_of(run.pseudo_path).split()
    for file in (run.pseudo_path, run.pseudo_path.with_suffix(".json")):
        file.unlink()
    np.savez(
        run.pseudo_path.with_suffix(".npz"),
        vertices=meshes,
        set_sha256=np.array(set_sha256),
        weights_sha256=np.array(weights_sha256),
    )
    # All stages are done: called again, each goes on from its own checkpoint alone.
    for stage in (stages.fine_tune_heatmaps, stages.train_weakly):
        assert stage(run).step == STEPS


def test_full_alone_trains_its_regressor_first_whatever_time_there_is(
    run: Run, starts: dict[str, dict[str, torch.Tensor]]
) -> None:
    stages.train_fully(replace(run, minutes=0.0))
    assert list(starts) == ["pose", "full"]
    assert load_network(run.checkpoint("pose")).step == run.pose_steps
    assert load_network(run.checkpoint("full")).step == 0
    assert equal(starts["full"], weights(run, "pose"), REGRESSOR)
    stages.train_fully(run)
    assert load_network(run.checkpoint("full")).step == STEPS


def test_without_fine_tuned_heat_maps_or_pseudo_meshes(
    run: Run, after: Stages, real: CroppedSet, starts: dict[str, dict[str, torch.Tensor]]
) -> None:
    after(stages.train_fully)
    stages.train_weakly(replace(run, weak=replace(run.weak, pseudo_mesh=0.0)))
    assert equal(starts["weak"], weights(run, "full"))
    assert not run.pseudo_path.exists()


def test_what_is_wrong_with_the_data_is_told_before_any_work(
    run: Run, after: Stages, real: CroppedSet
) -> None:
    after(stages.train_fully)
    recipe = replace(run.settings.recipe, batch=10)
    large = replace(run, settings=replace(run.settings, recipe=recipe), workers=1)
    for stage in (stages.fine_tune_heatmaps, stages.train_weakly):
        with pytest.raises(InputError, match="holds 8 hands to train on, a batch takes 10: give a"):
            stage(large)
    np.save(real.folder / "depth_maps.npy", np.full((8, 32, 32), np.nan, np.float32))
    with pytest.raises(InputError, match="no hand of the data has a depth map"):
        stages.train_weakly(run)
    assert not run.pseudo_path.exists()
    # Baseline 2 does not ask for any.
    assert stages.train_weakly(replace(run, weak=replace(run.weak, depth=0.0))).step == STEPS


def test_a_weak_run_goes_on_with_its_own_loss_alone(
    run: Run, after: Stages, real: CroppedSet
) -> None:
    after(stages.train_fully)
    stages.train_weakly(run)
    assert run.real is not None
    others = [
        replace(run, weak=replace(run.weak, pseudo_mesh=0.0)),
        replace(run, real=replace(run.real, far=run.real.far + 1)),
        replace(run, real=replace(run.real, depth_px=16)),
    ]
    for other in others:
        with pytest.raises(CheckpointError, match="of another terms"):
            stages.train_weakly(other)
    # Another pretrained network makes other pseudo meshes.
    state = torch.load(run.checkpoint("full"), weights_only=True)
    torch.save({**state, "step": 0}, run.checkpoint("full"))
    before, of = run.pseudo_path.read_bytes(), origin_of(run.pseudo_path)
    for stage in (stages.train_weakly, stages.make_pseudo):
        with pytest.raises(CheckpointError, match="of another terms"):
            stage(run)
    # What it can go on with is still there.
    assert (run.pseudo_path.read_bytes(), origin_of(run.pseudo_path)) == (before, of)
    torch.save(state, run.checkpoint("full"))


@pytest.mark.parametrize("kind", ["checkpoint", "bundle"])
def test_weights_from_elsewhere(
    run: Run,
    real: CroppedSet,
    starts: dict[str, dict[str, torch.Tensor]],
    tmp_path: Path,
    kind: str,
) -> None:
    """`start_from` takes the place of a pretrained network, for every stage; heat-maps that the
    folder's own stage (a) has trained since are kept."""
    torch.manual_seed(77)
    topology = Topology.default()
    other = build_network(run.config, topology, "mesh")
    given = {name: value.clone() for name, value in other.state_dict().items()}
    if kind == "bundle":
        path = tmp_path / "weights.safetensors"
        save_weights(other, path, run.config, topology)
    else:
        elsewhere = replace(run, folder=tmp_path / "elsewhere")
        path = elsewhere.checkpoint("full")
        trainer = Trainer(run.config, run.settings, path.parent, stages.full_task(run.weights))
        trainer.network.load_state_dict(given)
        trainer.save()
    begun = replace(run, start_from=path)

    stages.train_heatmaps(begun)
    assert equal(starts["heatmaps"], given)
    stages.train_fully(begun)
    own = torch.load(run.checkpoint("heatmaps"), weights_only=True)["average"]
    maps = tuple(name for name in given if name.startswith(MAPS))
    assert equal(starts["full"], own, *MAPS), "with the folder's own heat-maps"
    assert all(torch.equal(starts["full"][n], given[n]) for n in given if n not in maps)
    assert not run.checkpoint("pose").exists()
    stages.fine_tune_heatmaps(begun)
    assert equal(starts["fine-tune-heatmaps"], given)
    stages.train_weakly(begun)
    assert equal(starts["weak"], weights(run, "fine-tune-heatmaps"))
    assert not load_network(run.checkpoint("weak")).network.training


@pytest.mark.parametrize("kind", ["bundle", "checkpoint"])
def test_a_run_of_small_crops_is_gone_on_with_on_large_ones(
    run: Run, after: Stages, starts: dict[str, dict[str, torch.Tensor]], tmp_path: Path, kind: str
) -> None:
    after(stages.train_fully)
    path = run.checkpoint("full")
    small = weights(run, "full")
    if kind == "bundle":
        path = tmp_path / "weights.safetensors"
        network = load_network(run.checkpoint("full")).network
        save_weights(network, path, run.config, Topology.default())
    large = replace(
        run,
        folder=tmp_path / "large",
        config=replace(run.config, input_size=128),
        stream=replace(run.stream, augment=Augmentation(input_size=128)),
        start_from=path,
    )
    stages.train_fully(large)
    begun = starts["full"]
    assert equal({**begun, "encode.weight": small["encode.weight"]}, small)
    assert begun["encode.weight"].shape != small["encode.weight"].shape
    loaded = load_network(large.checkpoint("full"))
    assert (loaded.input_size, loaded.step) == (128, STEPS)
    assert not equal(loaded.network.state_dict(), begun)
    with pytest.raises(CheckpointError):  # a run stays at the size it was begun with
        stages.train_fully(replace(large, config=run.config))


@pytest.mark.parametrize("kind", ["bundle", "checkpoint"])
def test_pseudo_meshes_are_made_at_the_size_trained_for(
    run: Run,
    after: Stages,
    real: CroppedSet,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    kind: str,
) -> None:
    after(stages.train_fully)
    path = run.checkpoint("full")
    if kind == "bundle":
        path = tmp_path / "weights.safetensors"
        network = load_network(run.checkpoint("full")).network
        save_weights(network, path, run.config, Topology.default())
    sizes: list[tuple[int, int]] = []

    def made(network: torch.nn.Module, start: Path, data: Any, out: Path, *of: Any) -> None:
        network(torch.zeros(1, 3, of[0], of[0]))
        sizes.append(of[:2])

    monkeypatch.setattr(stages, "make_pseudo_meshes", made)
    large = replace(run.config, input_size=128)
    stages.make_pseudo(replace(run, config=large, start_from=path, folder=tmp_path / "large"))
    assert sizes == [(64, 16)]


@pytest.mark.parametrize(
    "damage",
    [
        {"config": {"network": "light", "newer": 1}},
        {"config": {"network": "light", "decoder": {"newer": 1}}},
        {"config": 3},
        {"average": {"encode.weight": torch.zeros(32, 5)}},
        {"average": {"encode.weight": torch.zeros(5)}},
    ],
)
def test_checkpoints_that_say_something_else_are_refused(
    run: Run, after: Stages, tmp_path: Path, damage: dict[str, Any]
) -> None:
    after(stages.train_heatmaps)
    state = torch.load(run.checkpoint("heatmaps"), weights_only=True)
    path = tmp_path / "other.pt"
    torch.save({**state, **damage}, path)
    config = replace(run.config, input_size=128)
    network = build_network(config, Topology.default(), "mesh")
    with pytest.raises(CheckpointError, match=r"other\.pt is of another network"):
        starting_from(path)(network)


def test_what_is_missing_is_named(run: Run, real: CroppedSet, tmp_path: Path) -> None:
    for stage in (stages.fine_tune_heatmaps, stages.make_pseudo, stages.train_weakly):
        with pytest.raises(CheckpointError, match="run `handmesh train full` first"):
            stage(run)
        with pytest.raises(CheckpointError, match=r"nothing to fine-tune at .*nowhere\.pt"):
            stage(replace(run, start_from=tmp_path / "nowhere.pt"))
        with pytest.raises(InputError, match="give --data"):
            stage(replace(run, real=None))
    for stage in (stages.train_heatmaps, stages.train_fully):
        with pytest.raises(CheckpointError, match=r"nowhere\.pt"):
            stage(replace(run, start_from=tmp_path / "nowhere.pt"))
        with pytest.raises(BundleError, match=r"nowhere\.safetensors"):
            stage(replace(run, start_from=tmp_path / "nowhere.safetensors"))
    assert not any(run.folder.rglob("*.pt"))


def test_weights_of_another_network_are_refused(run: Run, after: Stages, tmp_path: Path) -> None:
    after(stages.train_heatmaps)
    path = run.checkpoint("heatmaps")
    for change in ({"latent": 40}, {"joint_channels": 4}):
        other = replace(
            run, folder=tmp_path / "other", config=replace(run.config, **change), start_from=path
        )
        for head in ("mesh", "joints"):
            with pytest.raises(CheckpointError, match="of another network") as told:
                stages.train_fully(replace(other, head=head))
            if head == "mesh":  # another takes the trunk alone
                assert f"latent {run.config.latent}, head 'mesh', where" in str(told.value)
                assert f"latent {other.config.latent}, head 'mesh' is to" in str(told.value)
                assert f"they differ in {next(iter(change))})" in str(told.value)
            assert len(str(told.value)) < 400, "no list of all weights"


def test_a_detector_s_weights_are_told_to_be_that(run: Run) -> None:
    """Not to be of another graph, for which there would be a topology.npz."""
    weights = Path(Bundle.load(DETECTOR).artifact("torch"))
    with pytest.raises(BundleError, match=r"holds weights of .*'detector'.*, not of .*'light'"):
        stages.train_heatmaps(replace(run, start_from=weights))


class TestHeads:
    @pytest.mark.parametrize("head", ["joints", "parametric"])
    def test_another_head_than_mesh_trains(
        self, run: Run, starts: dict[str, dict[str, torch.Tensor]], head: Any
    ) -> None:
        run = replace(run, head=head)
        stages.train_heatmaps(run)
        stages.train_fully(run)
        loaded = load_network(run.checkpoint("full"))
        assert (loaded.head, loaded.step) == (head, STEPS)
        maps = weights(run, "heatmaps")
        trunk = tuple(f"trunk.{name}" for name in MAPS)
        assert equal(starts["full"], maps, *trunk)
        assert not equal(maps, starts["heatmaps"], *trunk)
        assert not equal(loaded.network.state_dict(), starts["full"], "head.")
        assert not run.checkpoint("pose").exists()

    def test_transfer_keeps_the_trunk_of_a_full_model(
        self, run: Run, after: Stages, tmp_path: Path
    ) -> None:
        after(stages.train_fully)
        full = weights(run, "full")
        transfer = replace(run, head="transfer", folder=tmp_path / "transfer")
        with pytest.raises(InputError, match="give --start-from"):
            stages.train_fully(transfer)
        transfer = replace(transfer, start_from=run.checkpoint("full"))
        stages.train_fully(transfer)
        trunk = {
            n.removeprefix("trunk."): v
            for n, v in weights(transfer, "full").items()
            if n.startswith("trunk.")
        }
        assert trunk
        assert all(torch.equal(full[name], value) for name, value in trunk.items())
        with pytest.raises(InputError, match="trunk under this head is fixed"):
            stages.train_heatmaps(transfer)

    @pytest.mark.parametrize("suffix", ["pt", "safetensors"])
    def test_the_trunk_of_a_full_model_goes_under_another_head(
        self, run: Run, after: Stages, tmp_path: Path, suffix: str
    ) -> None:
        after(stages.train_heatmaps)
        given = weights(run, "heatmaps")
        path = run.checkpoint("heatmaps")
        if suffix == "safetensors":
            path = tmp_path / "weights.safetensors"
            network = load_network(run.checkpoint("heatmaps")).network
            save_weights(network, path, run.config, Topology.default())
        torch.manual_seed(1)
        other = build_network(run.config, Topology.default(), "joints")
        before = {name: value.clone() for name, value in other.state_dict().items()}
        starting_from(path)(other)
        for name, value in other.state_dict().items():
            if name.startswith("trunk."):
                assert torch.equal(value, given[name.removeprefix("trunk.")]), name
            else:
                assert torch.equal(value, before[name]), name

    def test_so_does_that_of_another_baseline(self, run: Run) -> None:
        joints = replace(run, head="joints")
        stages.train_heatmaps(joints)
        given = weights(joints, "heatmaps")
        other = build_network(run.config, Topology.default(), "parametric")
        starting_from(joints.checkpoint("heatmaps"))(other)
        state = other.state_dict()
        assert all(torch.equal(state[n], v) for n, v in given.items() if n.startswith("trunk."))

    def test_depth_maps_take_a_mesh(self, run: Run, real: CroppedSet) -> None:
        for stage in (stages.make_pseudo, stages.train_weakly):
            with pytest.raises(InputError, match="head 'joints' has none"):
                stage(replace(run, head="joints"))
