"""Training a capsule network: ``fit``.

The training set's order in an epoch and the shifts of a step are functions of (seed, epoch) and
(seed, step), so a run that was stopped goes on to the same bits, and one that holds the images on
the device goes through the same as one that streams them.
"""

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array
from jax.sharding import Mesh
from tqdm import tqdm

from capsjax.data import Arrays, check_arrays, feeding
from capsjax.data.dataset import Made
from capsjax.data.made import for_training, for_validation, sample
from capsjax.training import hosts, parallel
from capsjax.training.checkpoint import Checkpoints
from capsjax.training.config import Config
from capsjax.training.division import check_recipe, divide, fingerprint
from capsjax.training.evaluation import evaluate
from capsjax.training.events import Events
from capsjax.training.lock import alone_in
from capsjax.training.metric_log import MetricLog
from capsjax.training.signals import catch_signals, leave
from capsjax.training.step import State, decay, make_step, schedule, split

Feed = Literal["auto", "device", "stream"]
EachEpoch = Callable[[int, nnx.Module], None]


class Result(NamedTuple):
    """What training gives back.

    Attributes:
        model: the network with the parameters of the lowest validation error, in evaluation mode.
        validation_error: of those parameters.
        history: every logged object, as in ``metrics.jsonl``.
        state: the last training state, not the best one.
        steps: all steps done.
        seconds: time spent in training and validation, earlier sessions of a resumed run included.
        images_per_second: training only, validation left out.
    """

    model: nnx.Module
    validation_error: float
    history: Sequence[dict[str, Any]]
    state: State
    steps: int
    seconds: float
    images_per_second: float


class _Progress(NamedTuple):
    """What a checkpoint holds beside the training state."""

    best_error: np.ndarray
    training_seconds: np.ndarray
    seconds: np.ndarray
    fingerprint: np.ndarray


_NO_PROGRESS = _Progress(np.array(np.inf), np.array(0.0), np.array(0.0), np.array(0, np.uint32))


def fit(
    model: nnx.Module,
    data: Arrays,
    config: Config = Config(),
    *,
    workdir: str | Path | None = None,
    progress: bool = False,
    made: Made | None = None,
    feed: Feed = "auto",
    validation: Arrays | None = None,
    devices: int | None = None,
    each_epoch: EachEpoch | None = None,
    tensorboard: bool = False,
) -> Result:
    """Train a network; with a work directory, resumably.

    Args:
        model: from ``capsjax.models.create``; it is left as it is.
        data: the training set, ``image`` uint8 ``[N, H, W, C]`` and ``label`` integer ``[N]``. Its
            last ``config.validation`` images are the validation set. Where every image shows k
            classes, ``label`` is ``[N, k]``; with ``sources`` uint8 ``[N, k, H, W, C]`` each of
            them is reconstructed by itself.
        config: choices of training.
        workdir: where ``metrics.jsonl`` and ``checkpoints/`` are kept; if it holds some, training
            goes on from the newest. None keeps nothing on disk.
        progress: show a progress bar.
        made: pictures to make of ``data``, new ones in every epoch; the validation set is made of
            its last images alone.
        feed: "device" holds the training images there, "stream" reads them from the host ahead of
            time, "auto" holds what fits. The result is the same.
        validation: the validation set; None takes the last ``config.validation`` images of
            ``data``.
        devices: how many share every batch; None is one, or where several hosts train together
            (``training.hosts``) all of theirs. A run may go on with another number.
        each_epoch: called at the end of every epoch, validated but not yet saved, with its number
            from 1 and the network as it is then, a copy. What a stopped run does again it calls
            again.
        tensorboard: also write the metrics as event files, in ``tensorboard/`` of the work
            directory; needs tensorboardX.

    Returns:
        The best network by validation error, and how it came to be.

    Raises:
        ValueError: malformed data, labels the network has no class for, fewer images than one
            batch, event files without tensorboardX or a work directory, more devices than there are
            or than share a batch evenly, or a work directory in which another process trains, that
            cannot be written, or that has checkpoints of another config, network or data, or
            none that is whole (newer damaged ones are renamed, with a warning).
        hosts.Lost: another host is gone; the checkpoints are kept.
        FloatingPointError: the loss became NaN or infinite; the step is named, and the last good
            checkpoint is kept.
        KeyboardInterrupt: SIGINT came; the state was saved first (with a work directory).
        SystemExit: SIGTERM came (code 143); the state was saved first (with a work directory).

    Example:
        >>> from capsjax import data, models
        >>> from capsjax.models import capsnet
        >>> config = capsnet.Config(features=4, kernel_size=3, primary_types=1, decoder=False)
        >>> few = Config(epochs=1, batch_size=4, limit=8, validation=4)
        >>> result = fit(models.create("capsnet", config=config), data.load("mnist"), few)
        >>> result.steps, type(result.model).__name__
        (2, 'Network')
    """
    num_classes = cast(Any, model).num_classes
    train, held_out = divide(data, validation, config, num_classes)
    if feed not in get_args(Feed):
        raise ValueError(f"feed is {feed!r}, expected 'auto', 'device' or 'stream'")
    if config.recipe is not None:
        check_recipe(config.recipe, train["image"].shape[1:], made)
    if made is not None:
        pictures = sample(for_validation(made), held_out)
        held_out = check_arrays(pictures, where="what is made of the data", several=True)
        made = for_training(made, config.seed)
    mesh = parallel.make_mesh(devices, config.batch_size)
    auto = made is None and (jax.process_count() > 1 or not feeding.fits(train))
    stream = feed == "stream" or (feed == "auto" and auto)
    folder = None if workdir is None else Path(workdir)
    with hosts.watch(), alone_in(folder):
        fit_ = _Fit(
            model,
            num_classes,
            train,
            held_out,
            config,
            folder,
            progress,
            made,
            stream,
            mesh,
            each_epoch,
            tensorboard,
        )
        return fit_.run()


def restore(model: nnx.Module, config: Config, checkpoints: Checkpoints, step: int) -> nnx.Module:
    """A network with the parameters of a checkpoint of ``fit``.

    Args:
        model: of the same shapes; it is left as it is.
        config: the training's choices (the checkpoint holds the optimizer's state too).
        checkpoints: the run's.
        step: which checkpoint.

    Returns:
        A new network, in evaluation mode.

    Raises:
        ValueError: the checkpoint is damaged, or of another network.
    """
    graph, params, rest = split(model)
    state = State(params, rest, _optimizer(config, 1).init(params), jnp.zeros((), jnp.int32))
    state, _ = checkpoints.restore(step, (state, _NO_PROGRESS))
    network: nnx.Module = nnx.merge(graph, state.params, state.rest)
    network.eval()
    return network


def _optimizer(config: Config, total_steps: int) -> optax.GradientTransformation:
    adam = optax.adam(schedule(config.schedule, config.peak_learning_rate, total_steps))
    before = []
    if config.gradient_clip is not None:
        before.append(optax.clip_by_global_norm(config.gradient_clip))
    if config.weight_decay > 0:
        before.append(decay(config.weight_decay))
    return optax.chain(*before, adam) if before else adam


class _Fit:
    """One call of ``fit``: fixed parts as attributes, the loop in ``run``."""

    def __init__(
        self,
        model: nnx.Module,
        num_classes: int,
        train: Arrays,
        validation: Arrays,
        config: Config,
        folder: Path | None,
        progress: bool,
        made: Made | None,
        stream: bool,
        mesh: Mesh | None,
        each_epoch: EachEpoch | None,
        tensorboard: bool,
    ):
        self.config = config
        self.mesh = mesh
        self.each_epoch = each_epoch
        self.validation = validation
        order_key, shift_key = jax.random.split(jax.random.key(config.seed))
        order = feeding.Order(len(train["label"]), config.batch_size, order_key)
        self.steps_per_epoch = order.steps_per_epoch
        self.total_steps = config.epochs * self.steps_per_epoch
        trained = nnx.clone(model)
        trained.train()  # it may have been tested, or be the result of an earlier training
        self.graph, params, rest = split(trained)
        optimizer = _optimizer(config, self.total_steps)
        self.best = (params, rest)
        params, rest = jax.tree.map(jnp.copy, self.best)  # the step donates its state
        self.state = State(params, rest, optimizer.init(params), jnp.zeros((), jnp.int32))
        if mesh is not None:
            self.state = parallel.replicate(self.state, mesh)
        number = fingerprint(config, made, train, validation)
        self.progress = _NO_PROGRESS._replace(fingerprint=number)
        step = make_step(
            self.graph,
            optimizer,
            num_classes=num_classes,
            limit=0 if made is not None else config.shift,
            loss=config.loss,
            key=shift_key,
            recipe=config.recipe,
            layer_metrics=config.layer_metrics,
            compute_dtype=config.compute_dtype,
            votes_at_once=config.votes_at_once,
            total_steps=self.total_steps,
            mesh=mesh,
        )
        self.step = jax.jit(step, donate_argnums=0)
        if mesh is not None:
            self.step = jax.jit(step, donate_argnums=0, out_shardings=parallel.on_all(mesh))
        self.batches_from = partial(
            feeding.batches,
            train,
            order,
            stop=self.total_steps,
            made=made,
            stream=stream,
            mesh=mesh,
        )
        self.checkpoints = None
        if folder is not None:
            # Several hosts would have to agree on what is damaged: there it is refused.
            mend = jax.process_count() == 1
            self.checkpoints = Checkpoints(folder / "checkpoints", mend=mend)
        writes = folder is not None and hosts.is_first()
        if tensorboard and folder is None:
            raise ValueError("event files for TensorBoard need a workdir to be kept in: give one")
        self.log = MetricLog(
            folder / "metrics.jsonl" if folder and writes else None,
            Events(folder / "tensorboard") if folder and writes and tensorboard else None,
        )
        self.show_progress = progress and hosts.is_first()

    def run(self) -> Result:
        self._resume()
        self.started = time.monotonic() - float(self.progress.seconds)
        done = int(self.state.step)
        try:
            with (
                jax.default_matmul_precision(self.config.precision),
                catch_signals(self.checkpoints is not None) as caught,
                tqdm(
                    total=self.total_steps * self.config.batch_size,
                    initial=done * self.config.batch_size,
                    unit="img",
                    dynamic_ncols=True,
                    # Where it is wanted, tqdm's own TQDM_DISABLE may still silence it.
                    **({} if self.show_progress else {"disable": True}),
                ) as bar,
            ):
                batches = self.batches_from(done)
                asked_to_stop = hosts.Stop(self.mesh)
                for step in range(done, self.total_steps):
                    self._advance(step, next(batches), bar)
                    end_of_epoch = (step + 1) % self.steps_per_epoch == 0
                    due = (step + 1) % self.config.checkpoint_every == 0
                    stop = asked_to_stop(caught)  # read once: no signal between the two
                    if end_of_epoch or due or stop:
                        self._save(step + 1, end_of_epoch, bar)
                    if stop:
                        leave(stop)
        finally:
            self.log.close()
            if self.checkpoints is not None:
                self.checkpoints.close()
        steps = self.total_steps
        trained = float(self.progress.training_seconds)
        return Result(
            model=self._for_testing(self.best),
            validation_error=float(self.progress.best_error),
            history=self.log.history,
            state=self.state,
            steps=steps,
            seconds=float(self.progress.seconds),
            images_per_second=steps * self.config.batch_size / trained if trained else math.nan,
        )

    def _resume(self) -> None:
        self.pending: tuple[int, dict[str, Array]] | None = None
        self.mark = time.monotonic()
        if self.checkpoints is None or self.checkpoints.latest is None:
            self.log.resume(0)
            return
        like = (self.state, self.progress)
        state, progress = self.checkpoints.restore(self.checkpoints.latest, like)
        if int(progress.fingerprint) != int(self.progress.fingerprint):
            raise ValueError(
                f"{self.checkpoints.directory} holds checkpoints of another config or of other "
                "data: go on with the same ones (only epochs may differ), or use another workdir"
            )
        if int(state.step) > self.total_steps:
            raise ValueError(
                f"{self.checkpoints.directory} holds a run of {int(state.step)} steps, more than "
                f"the {self.total_steps} of epochs={self.config.epochs}: give more epochs, or "
                "another workdir"
            )
        self.checkpoints.seal(self.checkpoints.latest)
        self.state, self.progress = state, progress
        if self.checkpoints.best is not None:
            best, _ = self.checkpoints.restore(self.checkpoints.best, like)
            self.best = self._own(best)
        self.log.resume(int(self.state.step))

    def _advance(self, step: int, batch: feeding.Batch, bar: tqdm) -> None:
        """Dispatch a step; meanwhile fetch the metrics of the one before."""
        self.state, metrics = self.step(
            self.state, batch["image"], batch["label"], batch.get("sources")
        )
        self._fetch(bar)
        self.pending = (step + 1, metrics)

    def _fetch(self, bar: tqdm) -> None:
        """Wait for the pending step, log its metrics, refuse NaN and Inf."""
        if self.pending is None:
            return
        step, device_metrics = self.pending
        self.pending = None
        metrics = {name: float(value) for name, value in device_metrics.items()}
        if not math.isfinite(metrics["loss"]):
            raise FloatingPointError(self._complaint(step, f"the loss is {metrics['loss']}"))
        self.log.write(step, "train", metrics)
        bar.update(self.config.batch_size)
        bar.set_postfix(
            loss=f"{metrics['loss']:.4f}",
            epoch=f"{(step - 1) // self.steps_per_epoch + 1}/{self.config.epochs}",
            refresh=False,
        )

    def _complaint(self, step: int, what: str) -> str:
        kept = (
            f"the checkpoint of step {self.checkpoints.latest} is kept"
            if self.checkpoints is not None and self.checkpoints.latest is not None
            else "there is no checkpoint yet"
        )
        return (
            f"{what} at step {step}; training stopped, {kept}. Look at the images, or try a "
            f"learning_rate below {self.config.peak_learning_rate:g} in another workdir"
        )

    def _save(self, step: int, end_of_epoch: bool, bar: tqdm) -> None:
        """Checkpoint a state that is known to be finite, validated first at an epoch's end."""
        self._fetch(bar)
        if not bool(_all_finite((self.state.params, self.state.rest))):
            raise FloatingPointError(self._complaint(step, "a parameter is NaN or infinite"))
        trained = float(self.progress.training_seconds) + time.monotonic() - self.mark
        best, error = float(self.progress.best_error), None
        if end_of_epoch:
            error = self._validate(step)
            if error <= best:  # of equal ones the later, as in Checkpoints.best
                best = error
                self.best = self._own(self.state)
            if self.each_epoch is not None:
                network = self._for_testing(self._own(self.state))
                self.each_epoch(step // self.steps_per_epoch, network)
        seconds = time.monotonic() - self.started
        self.progress = self.progress._replace(
            best_error=np.array(best),
            training_seconds=np.array(trained),
            seconds=np.array(seconds),
        )
        self.log.flush()
        if self.checkpoints is not None:
            self.checkpoints.save(step, (self.state, self.progress), error=error)
        self.mark = time.monotonic()

    def _own(self, state: State) -> tuple[Any, Any]:
        """Copies of parameters and rest that no step donates, on one device."""
        kept = (state.params, state.rest)
        return jax.tree.map(jnp.copy, kept) if self.mesh is None else parallel.own_copy(kept)

    def _for_testing(self, state: tuple[Any, Any]) -> nnx.Module:
        network: nnx.Module = nnx.merge(self.graph, *state, copy=True)
        network.eval()
        return network

    def _validate(self, step: int) -> float:
        params, rest = self.state.params, self.state.rest
        if self.mesh is not None:
            params, rest = self._own(self.state)
        network = nnx.merge(self.graph, params, rest, copy=True)
        error = evaluate(
            network,
            self.validation,
            precision=self.config.precision,
            recipe=self.config.recipe,
            mesh=parallel.host_mesh(self.mesh),
        ).error
        error = hosts.of_first(error)  # all must agree on which checkpoint is the best
        self.log.write(step, "validation", {"error": error})
        return error


@jax.jit
def _all_finite(tree: Any) -> Array:
    return jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()
