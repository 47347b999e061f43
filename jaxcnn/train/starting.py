"""The weights from which a run starts: drawn, computed from data, of another run or from a file (`config.init`)."""

import dataclasses
import pathlib
import zlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn import models
from jaxcnn.config import Config, Init, UserError
from jaxcnn.config.open_names import foreign
from jaxcnn.data.batch import Constants
from jaxcnn.data.source import Splits
from jaxcnn.learn import quantized, rates
from jaxcnn.learn.network import head_of, layers_of, network
from jaxcnn.learn.optim import make_optimizer
from jaxcnn.learn.state import State
from jaxcnn.learn.step_spec import StepSpec
from jaxcnn.machine import mesh as meshes
from jaxcnn.machine.heartbeat import Cluster
from jaxcnn.machine.paths import expand, separate
from jaxcnn.text import counted
from jaxcnn.train import network_of_weights, probe, same_network, seals, soup, trained, workdir
from jaxcnn.train.network_of_weights import fact, norm_of
from jaxcnn.train.normalization import Given
from jaxcnn.train.setup import Setup
from jaxcnn.weights import files, fit, hub, layout, released

FILE = "init.json"
MOST_TOLD = 8  # arrays with one reason that are listed one by one


@dataclasses.dataclass(frozen=True)
class Start:
    """Weights that were read, from another run or a file.

    Attributes:
      source: where they come from, for messages.
      naming: the library whose names they have, or "auto".
      arrays: arrays by their names in the file.
      class_names: names of the classes; empty if not known.
      normal: the mean and std that the network was trained with; None if not known.
      crc32: CRC-32 of all arrays.
      remarks: lines on how the weights were made.
      norm_is_known: whether the source tells with which epsilon of BatchNorm they were trained.
    """

    source: str
    naming: str
    arrays: dict[str, np.ndarray]
    class_names: tuple[str, ...]
    normal: Given | None
    crc32: int
    remarks: tuple[str, ...] = ()
    norm_is_known: bool = False


def of(config: Config, spec: StepSpec, splits: Splits, cluster: Cluster | None) -> Start | None:
    """The starting weights of a run, checked against its network; None if they are drawn.

    Raises:
      UserError: they cannot be read, are damaged, or do not fit the network; or other processes read others.
    """
    if not config.init.source:
        return None
    start = _read(config, splits)
    if cluster is not None and len(set(cluster.gather(start.crc32))) > 1:
        raise UserError(f"config.init.source={config.init.source!r} has other weights on some hosts than on others")
    shapes = jax.eval_shape(
        lambda: network(spec).init(jax.random.key(0), jnp.zeros((1, *spec.image_shape), jnp.float32))
    )
    drawn = {key: np.broadcast_to(np.float32(0), leaf.shape) for key, leaf in seals.leaves(shapes)}
    try:
        fitted = _fit(start, config, spec, splits, drawn)
    except UserError:
        network_of_weights.tell_fitting(start.source, start.arrays, config)
        raise
    probe.check(config, head_of(spec))
    if not start.norm_is_known:
        same_network.check_epsilon(config, start.source, fitted.naming)
    return start


def check(init: Init) -> None:
    """Tell before the data is read what the starting weights lack: their file, or a package that reads them.

    Raises:
      UserError: the file cannot be read, or is of no kind that is.
      MissingExtra: a package is not installed.
    """
    kind, _, place = init.source.partition(":")
    if kind == "hub":
        hub.check(place)
    elif kind == "file":
        files.check(expand(place, "config.init.source="))
    elif kind == "jaxcnn":
        released.find(place)


def begin(
    start: Start | None, found: Setup, state: State, folder: pathlib.Path | None, say: Callable[[str], None]
) -> State:
    """A new state with the starting weights in place of drawn ones.

    Args:
      start: the weights.
      found: the setup of the run.
      state: a new state.
      folder: the workdir, which gets a table that tells what became of each array; None: no table.
      say: called with lines for the user.
    """
    assert start is not None
    variables = quantized.without_ranges(state.variables())
    head = f"/{head_of(found.spec)}/"
    # The head alone may keep some of the randomly drawn numbers of an array.
    drawn = {
        key: on_host(leaf) if head in f"/{key}" else np.broadcast_to(np.float32(0), leaf.shape)
        for key, leaf in seals.leaves(variables)
    }
    fitted = _fit(start, found.config, found.spec, found.splits, drawn)
    state = with_arrays(state, found.spec, fitted.arrays)
    for line in describe(start, fitted):
        say(f"  {line}")
    if folder is not None:
        rows = [dataclasses.asdict(row) for row in fitted.rows]
        kept = {"source": start.source, "crc32_of_arrays": start.crc32, "names": fitted.naming, "arrays": rows}
        kept["remarks"] = list(start.remarks)
        workdir.write_sealed(folder / FILE, kept)
    return state


def with_arrays(state: State, spec: StepSpec, arrays: dict[str, np.ndarray]) -> State:
    """A new state with other values for the arrays with these names, also in its average."""
    made = seals.replaced(state.variables(), arrays)
    ema = state.ema and seals.replaced(state.ema, arrays)
    state = dataclasses.replace(state, params=made["params"], batch_stats=made["batch_stats"], ema=ema)
    if any(foreign(spec.optim)):  # its state may be made from the parameters, such as a copy of them
        state = dataclasses.replace(state, opt_state=_optimizer_state(spec, state))
    return state


def initialize_from_data(state: State, splits: Splits, normal: Constants) -> State:
    """A new state with the parameters that its network computes from the training split, if it has any."""
    wanted = min(models.examples_for_initialization(state.params), len(splits.train))
    if not wanted:
        return state
    images = splits.train.read(np.arange(wanted))
    mean, std = np.asarray(normal.mean), np.asarray(normal.std)

    def initialize(params: Any) -> Any:
        made = models.initialize_from_data(params, images, mean, std)
        return jax.tree.map(lambda new, old: meshes.put(new, old.sharding), made, params)

    # Parameters and moving average get separate arrays: a donated state must not hold one buffer twice.
    ema = state.ema and {**state.ema, "params": initialize(state.ema["params"])}
    return dataclasses.replace(state, params=initialize(state.params), ema=ema)


def describe(start: Start, fitted: fit.Fitted) -> list[str]:
    """What became of the arrays, in a few lines of text."""
    counts = Counter(row.status for row in fitted.rows if row.ours)
    told = ", ".join(
        f"{counts[status]} {status}" for status in (fit.LOADED, fit.ADAPTED, fit.LEFT_OUT) if counts[status]
    )
    lines = [f"starts from {start.source} (names of {fitted.naming}): {counted(sum(counts.values()), 'array')}, {told}"]
    alike: dict[tuple[str, str], list[str]] = {}
    for row in fitted.rows:
        if row.ours and row.status != fit.LOADED:
            alike.setdefault((row.status, row.why), []).append(row.ours.split("/", 1)[1])
    for (status, why), names in alike.items():
        shown_names = names if len(names) <= MOST_TOLD else [f"{names[0]} and {len(names) - 1} more"]
        lines += [f"  {status}: {name}: {why}" for name in shown_names]
    lines += [f"  {remark}" for remark in start.remarks]
    if start.normal is None:
        lines.append(
            "  the weights do not tell how their images were normalised: config.augment.normalize_by says it here"
        )
    return lines


def _read(config: Config, splits: Splits) -> Start:
    init = config.init
    kind, _, place = init.source.partition(":")
    if kind == "workdir":
        return _of_workdir(config, expand(place, "config.init.source="))[0]
    if kind == "workdirs":
        return _of_workdirs(config, [expand(each, "config.init.source=") for each in separate(place)], splits)
    path, facts = network_of_weights.file_of(init)
    arrays, told = files.read(path, init.half)
    facts |= told
    norm = norm_of(facts)
    known = isinstance(norm, dict) and norm.get("epsilon") is not None
    remarks = same_network.check(
        config, init.source, {"model": fact(facts, "model"), **({"norm": norm} if known else {})}
    )
    classes, normal = _facts(facts)
    return Start(f"{kind}:{place}", init.names, arrays, classes, normal, _crc32(arrays), tuple(remarks), known)


def _of_workdirs(config: Config, folders: list[pathlib.Path], splits: Splits) -> Start:
    init = config.init
    if len(folders) < 2 or (init.average == "line" and len(folders) > 2):
        wanted = "two folders" if init.average == "line" else "at least two folders"
        raise UserError(
            f"config.init.source={init.source!r:.200} needs {wanted} for config.init.average={init.average!r}"
        )
    for folder in folders:
        soup.check_unseen(folder, init.average, splits)
    starts, networks = zip(*(_of_workdir(config, folder) for folder in folders), strict=True)
    names = [str(folder) for folder in folders]
    arrays, remarks = soup.mixed(names, networks, [start.arrays for start in starts], init.average, splits.val)
    what = f"{len(folders)} runs ({init.average})"
    first = starts[0]
    told = (*first.remarks, *remarks)
    return Start(what, layout.OURS, arrays, first.class_names, first.normal, _crc32(arrays), told, norm_is_known=True)


def _of_workdir(config: Config, folder: pathlib.Path) -> tuple[Start, trained.Trained]:
    init = config.init
    remarks = same_network.check(config, f"workdir:{folder}", same_network.options(workdir.read_config(folder)))
    weights = "" if init.weights == "auto" else init.weights
    network, _ = trained.load(folder, init.checkpoint, weights, 1)
    arrays = seals.on_host(quantized.without_ranges(network.variables))
    mean, std = (
        tuple(float(x) for x in np.asarray(values)) for values in (network.constants.mean, network.constants.std)
    )
    what = f"workdir:{folder} (step {network.step}, {network.weights} weights)"
    normal = (mean, std) if network.config.augment.normalize else None
    crc32, classes = _crc32(arrays), network.class_names
    return Start(what, layout.OURS, arrays, classes, normal, crc32, tuple(remarks), norm_is_known=True), network


def _facts(facts: dict[str, str]) -> tuple[tuple[str, ...], Given | None]:
    """The names of classes and the normalisation in the facts of a file; invalid values are ignored."""
    names, mean, std = (fact(facts, name) for name in ("class_names", "mean", "std"))
    classes = tuple(names) if isinstance(names, list) and all(isinstance(each, str) for each in names) else ()
    whole = all(
        isinstance(each, list) and each and all(isinstance(x, int | float) for x in each) for each in (mean, std)
    )
    return classes, (tuple(map(float, mean)), tuple(map(float, std))) if whole and len(mean) == len(std) else None


def _fit(start: Start, config: Config, spec: StepSpec, splits: Splits, initial: dict[str, np.ndarray]) -> fit.Fitted:
    return fit.fit(
        start.arrays,
        config.model,
        initial,
        source=start.source,
        naming=start.naming,
        head=head_of(spec),
        new_head=config.init.head in ("new", "fitted"),
        classes=splits.class_names,
        given_classes=start.class_names,
        skip=config.init.skip,
        partial=config.init.partial,
    )


def on_host(leaf: Any) -> np.ndarray:
    """A whole array on the host, even if its parts lie on several hosts; then every host must call this."""
    if leaf.is_fully_addressable:
        return np.asarray(leaf)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))


def _optimizer_state(spec: StepSpec, state: State) -> Any:
    """A new state of the optimiser for the parameters of a state."""

    def make(params: Any, hyper: Any) -> Any:
        part = rates.trainable(params, layers_of(spec, state.batch_stats))
        made = make_optimizer(spec.optim, hyper, hyper.learning_rate).init(part)
        return jax.tree.map(jnp.copy, made)  # a donated state must not hold one buffer twice

    shardings = jax.tree.map(lambda leaf: leaf.sharding, state.opt_state)
    return jax.jit(make, out_shardings=shardings)(state.params, state.hyper)


def _crc32(arrays: dict[str, np.ndarray]) -> int:
    crc32 = 0
    for name in sorted(arrays):
        crc32 = zlib.crc32(np.ascontiguousarray(arrays[name]).data, zlib.crc32(name.encode(), crc32))
    return crc32
