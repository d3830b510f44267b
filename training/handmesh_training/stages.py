"""The paper's training, stage by stage (sections 4.3 and 4.4). Each is one function that can be
stopped at any time and goes on when it is called again.

    (a) train_heatmaps          hourglass alone, L_H               rendered hands
    (b) train_pose_regressor    meshes to joints, L_J              true meshes
    (c) train_fully             end to end, L_fully                rendered hands (and others)
    (d) fine_tune_heatmaps      hourglass alone, L_H               real data
    (e) make_pseudo             meshes of (c), true heat-maps      real data
    (f) train_weakly            end to end, L_weakly               real data, depth maps

Each keeps its checkpoint in a folder of its name and starts from those of the stages before it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from handmesh.errors import CheckpointError, InputError
from handmesh.graph import Topology
from handmesh.nn import (
    DetectorConfig,
    MeshConfig,
    NetworkConfig,
    from_dict,
    load_weights,
    read_config,
    to_dict,
)

from . import parallel
from .checkpoint import FILE, load_network, read_checkpoint
from .cropped_set import CroppedSet
from .cropped_stream import CroppedSettings, CroppedStream
from .device_stream import DeviceStream
from .heads import HeadName, HeadNetwork, build_network, load_trunk
from .input_size import differ_in_size_alone, fit_input_size
from .lanes import LaneSource, batches
from .losses import LossWeights
from .meshes import MeshStream, unseen_meshes
from .pseudo_meshes import (
    adopt_pseudo_meshes,
    are_pseudo_meshes_of,
    make_pseudo_meshes,
    origin_from,
)
from .samples import Crops
from .sources import Batch
from .stream import CropStream
from .stream_settings import StreamSettings
from .tasks import HeatmapPart, full_task, heatmap_task, pose_task, weak_task
from .train import OpenBatches, Task, Trainer, TrainSettings
from .weak_losses import WITHOUT_POSE, WeakWeights

HEATMAPS, POSE, FULL, FINE_TUNED, PSEUDO, WEAK = (
    "heatmaps", "pose", "full", "fine-tune-heatmaps", "pseudo", "weak",
)  # fmt: skip
STAGES = (HEATMAPS, POSE, FULL, FINE_TUNED, PSEUDO, WEAK)
PSEUDO_FILE = "meshes.npy"
MESH_HEADS: tuple[HeadName, ...] = ("mesh", "parametric")

# Loads weights into a fresh network.
Prepare = Callable[[nn.Module], None]


@dataclass(frozen=True)
class Run:
    """What all stages of one run share.

    Attributes:
        folder: each stage has a folder of its name in it.
        config: of the network. head: what the network ends in.
        settings: of the optimisation; ``steps`` is each stage's but the pose regressor's.
        pose_steps: batches of the pose regressor's training.
        weights: of L_fully and the other heads. weak: of L_weakly.
        stream: rendered hands, and what is mixed with them.
        real: cropped data sets for fine-tuning; None where there are none.
        validation: named sets of crops of hands at the network's input size.
        device: "cpu" or "cuda". workers: loader processes of each training process.
        draw_on_device: whether the GPU draws and augments rendered hands.
        start_from: weights of a bundle, or a checkpoint, to begin stages (a) and (c) with, or the
            fine-tuning in place of this run's own stage (c).
        minutes: stop each stage after so long.
    """

    folder: Path
    config: MeshConfig
    head: HeadName = "mesh"
    settings: TrainSettings = field(default_factory=TrainSettings)
    pose_steps: int = 1200
    weights: LossWeights = field(default_factory=LossWeights)
    weak: WeakWeights = WITHOUT_POSE
    stream: StreamSettings = field(default_factory=StreamSettings)
    real: CroppedSettings | None = None
    validation: dict[str, Crops] = field(default_factory=dict)
    device: str = "cpu"
    workers: int = 1
    draw_on_device: bool = False
    start_from: Path | None = None
    minutes: float = math.inf

    def checkpoint(self, stage: str) -> Path:
        """Where a stage keeps its checkpoint."""
        return self.folder / stage / FILE

    @property
    def pseudo_path(self) -> Path:
        """The meshes of stage (e)."""
        return self.folder / PSEUDO / PSEUDO_FILE

    def train(
        self,
        task: Task,
        open_batches: OpenBatches,
        prepare: Prepare | None = None,
        settings: TrainSettings | None = None,
        validation: dict[str, Crops] | None = None,
    ) -> Trainer:
        """Run one task in the folder of its name."""
        trainer = Trainer(
            self.config,
            settings or self.settings,
            self.folder / task.name,
            task,
            self.validation if validation is None else validation,
            self.device,
            self.head,
            prepare,
        )
        trainer.run(open_batches, self.minutes)
        return trainer

    def lanes_of(self, source: LaneSource) -> OpenBatches:
        """Batches of a source, made by this run's loaders."""

        def open_batches(own: list[int], of: int, start: int) -> Iterator[Batch]:
            return batches(source, own, of, start, self.workers)

        return open_batches

    def lane_stream(self) -> StreamSettings:
        """How one lane's parts of batches of rendered hands are made.

        Raises:
            InputError: they are too small for the photos and data sets to be in them.
        """
        return replace(self.stream, batch=self.settings.lane_batch)

    def rendered(self) -> OpenBatches:
        """Batches of rendered hands and what is mixed with them. Raises as `lane_stream`."""
        stream, seed = self.lane_stream(), self.settings.seed
        if not self.draw_on_device:
            return self.lanes_of(CropStream(stream, seed))

        def open_batches(own: list[int], of: int, start: int) -> Iterator[Batch]:
            if len(own) != 1:
                raise InputError("a GPU that draws its own hands has one lane: leave --lanes out")
            return iter(DeviceStream(stream, seed, self.device, self.workers, start, own[0], of))

        return open_batches

    def real_settings(self) -> CroppedSettings:
        """Of the real data.

        Raises:
            InputError: there is none.
        """
        if self.real is None:
            raise InputError("fine-tuning takes labelled data: give --data LAYOUT:SPLIT:DIR")
        return replace(self.real, batch=self.settings.lane_batch)

    def real_hands(self, pseudo: Path | None = None) -> OpenBatches:
        """Batches of real data, with pseudo-ground-truth meshes where they are given.

        Raises:
            InputError: there is none, or too little of it for a batch.
        """
        stream = CroppedStream(replace(self.real_settings(), pseudo=pseudo), self.settings.seed)
        stream.check(self.settings.lane_count)  # here, not in a loader
        return self.lanes_of(stream)


def train_heatmaps(run: Run) -> Trainer:
    """Stage (a): "we first train the stacked hourglass network ... with the heat-map loss"."""
    prepare = None if run.start_from is None else starting_from(run.start_from)
    return run.train(heatmap_task(), run.rendered(), prepare)


def train_pose_regressor(run: Run) -> Trainer:
    """Stage (b): "... and the 3D pose regressor separately with ... the 3D pose loss"."""
    settings = replace(run.settings, steps=run.pose_steps, evaluate=run.pose_steps)
    meshes = {"meshes": unseen_meshes(run.settings.seed)}
    source = MeshStream(run.settings.lane_batch, run.settings.seed)
    return run.train(pose_task(), run.lanes_of(source), settings=settings, validation=meshes)


def train_fully(run: Run) -> Trainer:
    """Stage (c): all networks but the pose regressor, end to end, by L_fully.

    Begins with ``start_from``, if that is given, and what stages (a) and (b) have left in the run's
    folder. A pose regressor that nobody has trained is trained first; heat-maps that nobody has
    trained learn along with the rest.

    Raises:
        InputError: the head "transfer" without ``start_from``: its trunk would be fixed untrained.
            And see `Run.lane_stream`.
    """
    run.lane_stream()  # whatever is wrong with it is told before stage (b)
    task = full_task(run.weights)
    if run.checkpoint(FULL).exists():  # goes on; nothing to prepare
        return run.train(task, run.rendered())
    if run.start_from is None and run.head == "transfer":
        raise InputError(
            'the head "transfer" stands on the trunk of a trained full model: give --start-from'
        )
    regressed = run.head == "mesh" and not _has_regressor(run.start_from)
    if regressed and _steps(run.checkpoint(POSE)) < run.pose_steps:
        # Whatever time there is: it is fixed from here on, and half trained it would stay so.
        train_pose_regressor(replace(run, minutes=math.inf))

    def prepare(network: nn.Module) -> None:
        if run.start_from is not None:
            starting_from(run.start_from)(network)
        if run.checkpoint(HEATMAPS).exists():
            take_heatmaps(network, run.checkpoint(HEATMAPS))
        if regressed:
            take_regressor(network, run.checkpoint(POSE))

    return run.train(task, run.rendered(), prepare)


def fine_tune_heatmaps(run: Run) -> Trainer:
    """Stage (d): "we first fine-tune the stacked hourglass network with the heat-map loss"."""
    open_batches = run.real_hands()
    goes_on = run.checkpoint(FINE_TUNED).exists()
    prepare = None if goes_on else starting_from(_pretrained(run))
    return run.train(heatmap_task(True), open_batches, prepare)


def make_pseudo(run: Run) -> Path:
    """Stage (e): meshes of the real training data by the pretrained network and true heat-maps.

    Returns:
        The file; one of the same data and network is kept, another is replaced.

    Raises:
        InputError: a head without a mesh.
        CheckpointError: a stage (f) is there that goes on with other meshes alone.
    """
    _check_mesh(run)
    path, data = run.pseudo_path, CroppedSet(run.real_settings().folder)
    old = path.with_suffix(".npz")  # of an earlier handmesh
    # Where the weights are gone, what they have made is all there is.
    gone = (path.exists() or old.exists()) and not _pretrained_path(run).exists()
    if parallel.rank() == 0 and old.exists() and not path.exists():
        adopt_pseudo_meshes(old, path)
    start = _pretrained_path(run) if gone else _pretrained(run)
    if not gone:
        _check_weak_takes(run, origin_from(data, start))
    if parallel.rank() == 0 and not gone and not are_pseudo_meshes_of(path, data, start):
        device = torch.device(run.device)
        network = _network_of(run, start).to(device)
        of: Any = network.config  # may be of other crops than this run's
        make_pseudo_meshes(network, start, data, path, of.input_size, of.heatmap_size, device)
    parallel.wait_for_all()
    return path


def train_weakly(run: Run) -> Trainer:
    """Stage (f): "then end-to-end fine-tune all networks with the combined loss L_weakly".

    All but the pose regressor, which stays the affine map that stage (b) made of it. Begins with
    stage (d)'s weights where they are there, with the pretrained ones otherwise. Stage (e) runs
    first, unless pseudo meshes have no weight; without them surfaces degenerate (Fig. 6).

    Raises:
        InputError: a head without a mesh, or data without a depth map where depth has a weight.
    """
    _check_mesh(run)
    run.real_hands()  # whatever is wrong with the data is told before stage (e)
    settings = run.real_settings()
    if run.weak.depth and not CroppedSet(settings.folder).has_depth_map.any():
        raise InputError(
            "no hand of the data has a depth map: they are cut from sets that have depth pictures, "
            "a camera and 3D joints (for root depth and scale), as stb:train_sk and rhd"
        )
    pseudo = make_pseudo(run) if run.weak.pseudo_mesh else None
    start = run.checkpoint(FINE_TUNED)
    task = weak_task(run.weak, settings.far, settings.depth_px, pseudo)
    goes_on = run.checkpoint(WEAK).exists()
    prepare = None if goes_on else starting_from(start if start.exists() else _pretrained(run))
    return run.train(task, run.real_hands(pseudo), prepare)


def starting_from(path: Path, trunk_only: bool = False) -> Prepare:
    """Begin with the weights of a checkpoint, or of a bundle's weights file. Another head takes
    over the trunk alone, and so does the same one with ``trunk_only``. Weights of another input
    size are fitted to the network's (`fit_input_size`).

    Raises, when called: CheckpointError, BundleError, GraphMismatchError: weights that cannot be
    read, or of another network.
    """

    def prepare(network: nn.Module) -> None:
        own = network.head_name if isinstance(network, HeadNetwork) else "mesh"
        try:
            weights, head = _weights_of(path, network)
            if trunk_only or head != own:
                load_trunk(network, _full_model(weights))
            else:
                network.load_state_dict(weights)
        except RuntimeError as error:  # which lists every weight there is
            config: Any = network.config
            stored, its_head = _network_in(path)
            words = f"{_told(stored, its_head)}, where {_told(config, own)} is to be trained"
            words += _differing(stored, config)
            raise CheckpointError(f"{path} is of another network ({words})") from error
        except (InputError, TypeError, IndexError) as error:
            raise CheckpointError(f"{path} is of another network ({error})") from error

    return prepare


def _network_in(path: Path) -> tuple[NetworkConfig, str]:
    """What a file of weights says that they are of."""
    if path.suffix == ".safetensors":
        return read_config(path), "mesh"
    state = read_checkpoint(path)
    return from_dict(state["config"]), state.get("head", "mesh")


def _told(config: NetworkConfig, head: str) -> str:
    """A network in a few words."""
    if isinstance(config, DetectorConfig):
        return f"{config.name} of {config.input_size} px"
    return f"{config.name} of {config.input_size} px, latent {config.latent}, head {head!r}"


def _differing(stored: NetworkConfig, config: NetworkConfig) -> str:
    """The hyper-parameters in which two networks of one kind differ, which `_told` may not tell."""
    if type(stored) is not type(config):
        return ""
    own, wanted = to_dict(stored), to_dict(config)
    names = [name for name in wanted if own[name] != wanted[name]]
    return f"; they differ in {', '.join(names)}" if names else ""


def take_heatmaps(network: nn.Module, path: Path) -> None:
    """Give a network the part that stage (a) trained.

    Raises:
        CheckpointError: of another network.
    """
    trained = HeatmapPart(load_network(path).network)
    try:
        HeatmapPart(network).load_state_dict(trained.state_dict())
    except RuntimeError as error:
        raise CheckpointError(f"{path} is of another network; use another folder") from error


def take_regressor(network: nn.Module, path: Path) -> None:
    """Give a network the pose regressor that stage (b) trained."""
    own: Any = network.pose_regressor
    trained: Any = load_network(path).network.pose_regressor
    own.load_state_dict(trained.state_dict())


def _weights_of(path: Path, network: nn.Module) -> tuple[dict[str, Tensor], str]:
    """Weights of a file, and the head that they are of; a bundle's is always the mesh."""
    wanted: Any = network.config
    if path.suffix != ".safetensors":
        state = read_checkpoint(path)
        made_for: Any = from_dict(state["config"])
        return fit_input_size(state["average"], made_for, wanted), state.get("head", "mesh")
    stored = read_config(path)
    made_for = stored if differ_in_size_alone(stored, wanted) else wanted  # refused below
    topology = Topology.default()
    whole = build_network(made_for, topology, "mesh")
    # A detector's weights know no graph; that they are a detector's is told, not that.
    graph = None if isinstance(stored, DetectorConfig) else topology
    load_weights(whole, path, made_for, graph)
    return fit_input_size(whole.state_dict(), made_for, wanted), "mesh"


def _full_model(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights under any head, with their trunk's named as those of the full model."""
    own = "trunk."
    trunk = {name.removeprefix(own): t for name, t in weights.items() if name.startswith(own)}
    return trunk or weights


def _network_of(run: Run, path: Path) -> nn.Module:
    """The network of a file, at the input size that it was trained for."""
    if path.suffix != ".safetensors":
        return load_network(path).network
    stored = read_config(path)
    own = differ_in_size_alone(stored, run.config)
    config = replace(run.config, input_size=stored.input_size) if own else run.config
    network = build_network(config, Topology.default(), run.head)
    starting_from(path)(network)
    return network


def _check_mesh(run: Run) -> None:
    if run.head not in MESH_HEADS:
        raise InputError(
            f"depth maps are rendered from meshes, and the head {run.head!r} has none: take one of "
            f"{', '.join(MESH_HEADS)}"
        )


def _check_weak_takes(run: Run, origin: str) -> None:
    """Pseudo meshes that a stage (f) was begun with are all that it can go on with: they are not
    replaced by others, which it would be refused with afterwards.

    Raises:
        CheckpointError: they would be.
    """
    path = run.checkpoint(WEAK)
    if not path.exists():
        return
    begun = read_checkpoint(path, resumed=True).get("terms", {}).get("pseudo")
    if begun is not None and begun != origin:
        raise CheckpointError(
            f"{path} is of another terms: it was begun with pseudo meshes of another network or "
            f"data set ({begun}, not {origin}), which are kept; start from what it was begun with, "
            "use another folder, or delete it"
        )


def _pretrained_path(run: Run) -> Path:
    return run.checkpoint(FULL) if run.start_from is None else run.start_from


def _pretrained(run: Run) -> Path:
    """Weights that fine-tuning begins with.

    Raises:
        CheckpointError: there are none.
    """
    path = _pretrained_path(run)
    if not path.exists():
        raise CheckpointError(
            f"there is nothing to fine-tune at {path}: run `handmesh train full` first, or give "
            "--start-from"
        )
    return path


def check_pretrained(run: Run, wanted: Sequence[str]) -> None:
    """Look for what fine-tuning begins with, before data is cut for it.

    Args:
        wanted: stages that are to be run; stage (c) among them makes it.

    Raises:
        CheckpointError: a stage begins with weights that are not there.
    """
    if FULL in wanted:
        return
    made = run.pseudo_path.exists() or run.pseudo_path.with_suffix(".npz").exists()
    begun = {stage for stage in (FINE_TUNED, WEAK) if run.checkpoint(stage).exists()}
    missing = {
        FINE_TUNED: FINE_TUNED not in begun,
        PSEUDO: not made,
        WEAK: (bool(run.weak.pseudo_mesh) and not made) or not (begun or FINE_TUNED in wanted),
    }
    if any(missing.get(stage) for stage in wanted):
        _pretrained(run)


def _has_regressor(start: Path | None) -> bool:
    """Whether weights to start from come with a trained pose regressor."""
    if start is None:
        return False
    if start.suffix == ".safetensors":  # bundles are of whole networks
        return True
    state = read_checkpoint(start)
    return state.get("head", "mesh") == "mesh" and state.get("stage") != HEATMAPS


def _steps(path: Path) -> int:
    """Batches of a checkpoint; -1 where there is none."""
    return int(read_checkpoint(path, resumed=True)["step"]) if path.exists() else -1
