"""The training step, a pure function from state and batch to state and metrics."""

import functools
from collections.abc import Callable
from typing import TypeVar

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax.typing import Collection
from jaxtyping import Array, Bool, Int32

from jaxcnn.data import augment, bars, order
from jaxcnn.data.batch import Batch, Constants
from jaxcnn.learn import metrics, prune, quantized, rates, sharing, slimming
from jaxcnn.learn.microbatches import accumulated
from jaxcnn.learn.network import answering, layers_of
from jaxcnn.learn.optim import make_optimizer
from jaxcnn.learn.schedule import learning_rate_factor, whitening_bias_scale
from jaxcnn.learn.state import Hyper, State, step_key
from jaxcnn.learn.step_spec import StepSpec
from jaxcnn.models import whitening
from jaxcnn.tasks import example_weights
from jaxcnn.tasks.moving import Movable

_Carried = TypeVar("_Carried")
_Metrics = TypeVar("_Metrics")

SMALLEST_NORM = 1e-12  # added to the norm of the gradient in sharpness-aware minimisation
INIT_STEP = -1  # the step whose key initialises the parameters
RUN_STEP = -2  # the step whose key is that of the whole run
AUGMENT, DROPOUT, SIDE = 0, 1, 2  # constants folded into a step's key


@flax.struct.dataclass
class StepMetrics:
    """The metrics of a training step.

    Attributes:
      sums: sums over the global batch, of the training loss (smoothed, mixed targets) and the task's metrics.
      grad_norm: global L2 norm of the gradient, before clipping.
      learning_rate: the learning rate that was used.
    """

    sums: metrics.Sums
    grad_norm: metrics.Scalar
    learning_rate: metrics.Scalar


@flax.struct.dataclass
class Gradients:
    """The results of the first half of a step.

    Attributes:
      grads: gradients of the loss, a tree like the parameters.
      sums: sums of the training metrics.
      batch_stats: the new running statistics of BatchNorm; with `optim.quantized`, the input of `quantized.tracked`.
    """

    grads: Collection
    sums: metrics.Sums
    batch_stats: Collection


def init_state(spec: StepSpec, hyper: Hyper) -> State:
    """A new state at step 0, its parameters drawn from `hyper.seed`."""
    model = answering(spec)
    key = step_key(hyper.seed, INIT_STEP)
    variables = model.init(key, jnp.zeros((1, *spec.image_shape), jnp.float32))
    params, batch_stats = variables["params"], variables.get("batch_stats", {})
    hyper = jax.tree.map(jnp.asarray, hyper)
    ema = {"params": params, "batch_stats": batch_stats} if spec.optim.averages else None
    # A copy, since a donated state must not hold one buffer twice.
    ema = jax.tree.map(jnp.copy, ema)
    part = rates.trainable(params, layers_of(spec, batch_stats))
    opt_state = make_optimizer(spec.optim, hyper, hyper.learning_rate).init(part)
    return State(jnp.zeros((), jnp.int32), params, batch_stats, opt_state, ema, hyper)


def train_step(
    spec: StepSpec, state: State, batch: Batch, constants: Constants, *, unroll: bool = False
) -> tuple[State, StepMetrics]:
    """Take one step of training on one device: augment, differentiate, update.

    Args:
      spec: the static part of the run.
      state: the state after `state.step` steps.
      batch: the whole batch.
      constants: normalisation by the training split, and the arrays of the task.
      unroll: see `batch_gradients`.

    Returns:
      The next state and the metrics.
    """
    inputs = state.batch_stats, state.step, state.hyper, batch, constants
    gradients = uphill(spec, lambda params: batch_gradients(spec, params, *inputs, unroll=unroll), state)
    return update(spec, state, gradients)


def uphill(spec: StepSpec, gradients: Callable[[Collection], Gradients], state: State) -> Gradients:
    """The gradients for the update: those at the parameters or, with `optim.sam_radius`, uphill of them.

    Sharpness-aware minimisation (Foret et al. 2020, arXiv 2010.01412, equation 2 and algorithm 1) takes them at this
    distance in the direction in which the loss of the whole batch rises most. Metrics and running statistics are those
    at the parameters.

    Args:
      spec: the static part of the run.
      gradients: returns the gradients of the whole batch at some parameters.
      state: the state before the step.
    """
    if spec.prune.is_on:
        gradients = functools.partial(_of_live_weights, spec, gradients, state)
    if spec.optim.shared_values:
        gradients = functools.partial(_of_shared_values, spec, gradients, state)
    here = gradients(state.params)
    if not spec.optim.sam_radius:
        return here
    part = rates.trainable(state.params, layers_of(spec, state.batch_stats))
    ascent = jax.tree.map(lambda share: share.astype(jnp.float32), here.grads)
    distance = spec.optim.sam_radius / (optax.tree.norm(ascent) + SMALLEST_NORM)
    moved = jax.tree.map(lambda weight, direction: weight + distance * direction, part, ascent)
    return Gradients(gradients(rates.merged(moved, state.params)).grads, here.sums, here.batch_stats)


def _of_live_weights(
    spec: StepSpec, gradients: Callable[[Collection], Gradients], state: State, params: Collection
) -> Gradients:
    """The gradients at some parameters, with zeros for the weights that are pruned."""
    found = gradients(params)
    grads = prune.masked(spec.prune, found.grads, state.params, state.step, spec.total_steps)
    return Gradients(grads, found.sums, found.batch_stats)


def _of_shared_values(
    spec: StepSpec, gradients: Callable[[Collection], Gradients], state: State, params: Collection
) -> Gradients:
    """The gradients at some parameters, summed over the weights that share a value."""
    found = gradients(params)
    grads = sharing.summed(spec.optim.shared_values, found.grads, state.params)
    return Gradients(grads, found.sums, found.batch_stats)


def update(spec: StepSpec, state: State, gradients: Gradients) -> tuple[State, StepMetrics]:
    """Take the second half of a step: the optimiser, and the moving average.

    It does not depend on devices: it is written for whole arrays, and XLA partitions it as the arrays are sharded.

    Args:
      spec: the static part of the run.
      state: the state after `state.step` steps.
      gradients: the gradients of the whole batch.

    Returns:
      The next state and the metrics.
    """
    grads = jax.tree.map(lambda share: share.astype(jnp.float32), gradients.grads)
    factor = learning_rate_factor(
        spec.schedule, state.step, total_steps=spec.total_steps, steps_per_epoch=spec.steps_per_epoch
    )
    learning_rate = state.hyper.learning_rate * factor
    bias_scale = whitening_bias_scale(
        spec.optim.whitening_bias_epochs, state.step, factor, steps_per_epoch=spec.steps_per_epoch
    )
    norm = optax.tree.norm(grads)
    layers = layers_of(spec, state.batch_stats)
    scale = rates.scale(layers, {whitening.BIAS: bias_scale})
    optimizer = make_optimizer(spec.optim, state.hyper, _known_after(norm, learning_rate), scale, state.step)
    part = rates.trainable(state.params, layers)
    if spec.optim.slimming:
        grads = slimming.penalized(spec.optim.slimming, grads, part, state.batch_stats)
    updates, opt_state = optimizer.update(grads, state.opt_state, part)
    part = optax.apply_updates(part, updates)
    if spec.prune.is_on:
        part = prune.pruned(spec.prune, part, state.params, state.step, spec.total_steps)
    if spec.optim.shared_values:
        part = sharing.kept(spec.optim.shared_values, part, state.params)
    params = rates.merged(part, state.params)
    batch_stats = gradients.batch_stats
    if spec.optim.quantized:
        batch_stats = quantized.tracked(state.batch_stats, batch_stats, state.step)
    ema = _average(spec, state, {"params": params, "batch_stats": batch_stats})
    if spec.prune.is_on and ema is not None:
        ema |= {"params": prune.masked(spec.prune, ema["params"], params, state.step, spec.total_steps)}
    if spec.optim.shared_values and ema is not None:
        ema |= {"params": sharing.kept(spec.optim.shared_values, ema["params"], params)}
    next_state = State(
        step=state.step + 1,
        params=params,
        batch_stats=batch_stats,
        opt_state=opt_state,
        ema=ema,
        hyper=state.hyper,
    )
    return next_state, StepMetrics(gradients.sums, norm, learning_rate)


def _known_after(norm: metrics.Scalar, learning_rate: metrics.Scalar) -> metrics.Scalar:
    """`learning_rate`; NaN if the gradients' `norm` is NaN, which stops a run anyway.

    With this dependency, the update of any parameter comes after the last use of all of them. Without it, XLA writes
    each update to a copy, in case the gradient of that layer's input still needs the old parameter;
    `lax.optimization_barrier` does not help, as XLA removes it before.
    """
    return jnp.where(jnp.isnan(norm), norm, learning_rate)


def batch_gradients(
    spec: StepSpec,
    params: Collection,
    batch_stats: Collection,
    step: Int32[Array, ""],
    hyper: Hyper,
    batch: Batch,
    constants: Constants,
    axis_name: str | None = None,
    unroll: bool = False,
) -> Gradients:
    """Take the first half of a step: augment a batch and differentiate its loss.

    Args:
      spec: the static part of the run.
      params, batch_stats, step, hyper: fields of the state.
      batch: the whole batch; or, if `axis_name` is a mesh axis inside `jax.shard_map`, this device's shard of
        it, stored in the order of `jaxcnn.data.order.storage_positions`.
      constants: normalisation by the training split, and the arrays of the task.
      axis_name: the mesh axis over which the batch is split, or None.
      unroll: write out the microbatches one after another instead of looping over them.

    Returns:
      The `Gradients` of this device's examples, `grads` in `optim.gradient_dtype`. Over the devices, `grads` and `sums`
      must be summed, and `batch_stats` averaged; with `optim.quantized`, their largest values are taken.
    """
    if len(spec.sizes) > 1:
        if spec.augment.shapes:
            which = bars.kind_of_batch(batch, spec.augment.shapes, axis_name)
        else:
            which = jax.random.randint(jax.random.fold_in(step_key(hyper.seed, step), SIDE), (), 0, len(spec.sizes))
        # One program has all of them, and a step takes one.
        ways = [functools.partial(batch_gradients, one, axis_name=axis_name, unroll=unroll) for one in spec.sizes]
        return jax.lax.switch(which, ways, params, batch_stats, step, hyper, batch, constants)
    microbatches = spec.optim.accumulate_steps
    key = step_key(hyper.seed, step)
    if spec.shape:
        assert isinstance(spec.task.targets, Movable)  # the config refuses others
        batch = bars.cropped(spec.task.targets, batch, spec.shape)
    examples = augment.augment(
        spec.augment,
        spec.task.targets,
        batch,
        jax.random.fold_in(key, AUGMENT),
        constants.mean,
        constants.std,
        run_key=step_key(hyper.seed, RUN_STEP),
        epoch=order.epoch_of(step, batch.position, spec.global_batch_size, spec.train_examples),
        composing_on=composes(spec, step),
        axis_name=axis_name,
        microbatches=microbatches,
        small_side=spec.small_side,
    )
    model = answering(spec, axis_name)
    dropout_key = jax.random.fold_in(key, DROPOUT)

    def microbatch_loss(
        part: Collection, micro: tuple[augment.Augmented, Batch]
    ) -> tuple[metrics.Scalar, tuple[metrics.Sums, Collection]]:
        examples, source = micro
        seen = {"target": examples.target} if getattr(model, "LEARNS_FROM_TARGET", False) else {}
        outputs, updates = model.apply(
            {"params": rates.merged(part, params), "batch_stats": batch_stats},
            examples.image,
            positions=source.position,
            train=True,
            rngs={"dropout": dropout_key},
            mutable=["batch_stats"],
            **seen,
        )
        task, settings = spec.task, hyper.settings()
        loss = task.loss.losses(outputs, examples.target, settings, constants, examples.image)
        if constants.task and example_weights.NAME in constants.task:
            loss = loss * constants.task[example_weights.NAME][source.index]
        values = task.evaluation.values(outputs, examples.target, constants)
        sums = metrics.summed({metrics.LOSS: loss, **values}, source.mask)
        return sums[metrics.LOSS] / spec.global_batch_size, (sums, updates.get("batch_stats", {}))

    gradient = jax.value_and_grad(microbatch_loss, has_aux=True)
    part = rates.trainable(params, layers_of(spec, batch_stats))
    largest = spec.optim.quantized > 0
    (_, (sums, new_stats)), grads = accumulated(gradient, part, (examples, batch), microbatches, unroll, largest)
    dtype = jnp.dtype(spec.optim.gradient_dtype)
    grads = jax.tree.map(lambda share: share.astype(dtype), grads)
    new_stats = new_stats if largest else jax.tree.map(lambda total: total / microbatches, new_stats)
    return Gradients(grads, sums, new_stats)


def composes(spec: StepSpec, step: Int32[Array, ""]) -> Bool[Array, ""] | bool:
    """Whether images may still be composed of several at a step."""
    share = spec.augment.single_from
    return step < round(share * spec.total_steps) if share else True


def repeat(
    one: Callable[[_Carried], tuple[_Carried, _Metrics]], most: int, state: _Carried, count: Int32[Array, ""]
) -> tuple[_Carried, _Metrics]:
    """Take `count` steps `state -> (state, metrics)` in a loop.

    Args:
      one: the step.
      most: the most steps; length of the leading axis of the metrics.
      state: the state before the first step.
      count: 1 ... `most`, traced.

    Returns:
      The state after the last step, and the metrics with a leading axis of `most`, of which the first `count` are set.
    """

    def next_step(i: Int32[Array, ""], carry: tuple[_Carried, _Metrics]) -> tuple[_Carried, _Metrics]:
        state, metrics = one(carry[0])
        return state, jax.tree.map(lambda rows, row: rows.at[i].set(row), carry[1], metrics)

    shapes = jax.eval_shape(one, state)[1]
    metrics = jax.tree.map(lambda row: jnp.zeros((most, *row.shape), row.dtype), shapes)
    return jax.lax.fori_loop(0, count, next_step, (state, metrics))


def _average(spec: StepSpec, state: State, variables: dict[str, Collection]) -> dict[str, Collection] | None:
    """The average of the variables after this step; None without one.

    In a moving average, the old average has the weight min(decay, (1 + t) / (10 + t)). In stochastic weight averaging
    (Izmailov et al. 2018, arXiv 1803.05407), all steps from the first averaged one on have the same weight; before it,
    the average is the last step. The statistics of BatchNorm are averaged, too, without a pass over the data.
    """
    if state.ema is None:
        return None
    step = state.step.astype(jnp.float32)
    if spec.optim.swa_from:
        averaged = jnp.maximum(step - round(spec.optim.swa_from * spec.total_steps), 0.0)
        decay = averaged / (averaged + 1.0)
    else:
        decay = jnp.minimum(spec.optim.ema_decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda old, new: decay * old + (1.0 - decay) * new, state.ema, variables)
