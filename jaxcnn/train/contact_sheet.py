"""The contact sheet of `jaxcnn.preview`: training examples, and what augmentation makes of them in training steps."""

import dataclasses
import operator
import textwrap
from collections.abc import Callable
from typing import Any

import numpy as np

import jaxcnn.config as configuration
from jaxcnn.config import places
from jaxcnn.data.batch import Split
from jaxcnn.tasks.moving import Movable
from jaxcnn.tasks.task import Targets
from jaxcnn.text import shown

CELL = 120  # approximate side in pixels of an image in the sheet; rounded to a multiple of the image's own side
LARGEST_CELL = 256  # pixels; larger images are shrunk
MARGIN, GAP, GAP_AFTER_ORIGINAL = 20, 8, 24  # pixels
LINE, CHARACTER = 15, 6.6  # pixels: height of a line of text, width of an average character
OUTLINE = 0.75  # grey, so that white borders of an image differ from the page
DPI = 100
FONT_POINTS = 8


@dataclasses.dataclass(frozen=True)
class Draws:
    """The contents of a sheet, for n examples and d steps.

    Attributes:
      original: [n, H, W, C], in the type of the split.
      target: the targets of the originals, from `jaxcnn.tasks.task.Targets.whole`.
      image: float32 [d, n, H, W, C], augmented and de-normalised: in [0, 1], or floats as they are stored.
      targets: those of the augmented images, one pytree for each step.
    """

    original: np.ndarray
    target: Any
    image: np.ndarray
    targets: list[Any]


def draw_sheet(config: configuration.Config, split: Split, kind: Targets, examples: int, draws: int) -> Any:
    """The contact sheet as a `matplotlib.figure.Figure`; save it with `dpi=DPI`."""
    made = augmented_draws(config, split, kind, examples, draws)
    title = [f"{shown(split.description)}, seed {config.seed}", settings(config.augment)]

    def captions(target: Any, letters: int) -> list[str]:
        return kind.captions(target, tuple(map(shown, split.class_names)), letters)

    mixed = any(getattr(config.augment, name) for name in ("mixup", "cutmix", *places.COMPOSED))
    return lay_out(made, captions, mixed, title, kind.drawn if isinstance(kind, Movable) else None)


def augmented_draws(config: configuration.Config, split: Split, kind: Targets, examples: int, draws: int) -> Draws:
    """Augment examples of a split as in training at positions 0, 1, … of steps 0, 1, ….

    Each step counts as a new epoch, since an example is seen once per epoch. `single_from` does not count.
    """
    import jax
    import jax.numpy as jnp

    from jaxcnn.data import augment
    from jaxcnn.data.batch import Batch
    from jaxcnn.data.image_statistics import image_statistics
    from jaxcnn.learn import step as learn
    from jaxcnn.learn.state import step_key

    chosen = choose(kind.groups(split.targets), examples, config.seed)
    original, target = split.read(chosen), jax.tree.map(lambda rows: jnp.asarray(rows[chosen]), split.targets)
    channels = split.image_shape[-1]
    mean, std = jnp.zeros(channels), jnp.ones(channels)
    if config.augment.normalize and (config.augment.cutout or config.augment.erasing):  # where they are visible
        mean, std = map(jnp.asarray, image_statistics(split))
    position = jnp.arange(len(chosen), dtype=jnp.int32)
    index = jnp.asarray(chosen, jnp.int32)
    batch = Batch(jnp.asarray(original), target, index, position, jnp.ones(len(chosen), bool))
    run_key = step_key(jnp.int32(config.seed), learn.RUN_STEP)

    @jax.jit
    def of_step(step: jax.Array) -> Any:
        key = jax.random.fold_in(step_key(jnp.int32(config.seed), step), learn.AUGMENT)
        epoch = jnp.full(position.shape, step)
        augmented = augment.augment(config.augment, kind, batch, key, mean, std, run_key=run_key, epoch=epoch)
        return dataclasses.replace(augmented, image=augment.denormalize(augmented.image, mean, std))

    steps = [jax.device_get(of_step(jnp.int32(step))) for step in range(draws)]
    images = np.stack([made.image for made in steps])
    return Draws(original, jax.device_get(kind.whole(target)), images, [made.target for made in steps])


def choose(groups: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Indices [count] of random examples, of as many different groups as possible; fewer if the set is smaller."""
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(groups))
    _, first = np.unique(groups[order], return_index=True)
    rest = np.setdiff1d(np.arange(len(order)), first)
    return order[np.concatenate([np.sort(first), rest])[:count]]


def settings(augment: configuration.Augment) -> str:
    """The augmentation in words: the enabled fields, with those on which they depend."""
    fields = dataclasses.asdict(augment)
    needs = {
        "crop_padding": augment.crop != "none",
        "normalize_by": augment.normalize_by != "auto",
        "policy_layers": augment.policy == "randaugment",
        "policy_magnitude": augment.policy == "randaugment",
    }
    told = {
        name: value
        for name, value in fields.items()
        if needs.get(name, value not in (False, 0, "none", ())) and not (name == "normalize" and value)
    }
    told |= {} if augment.normalize else {"normalize": False}
    return ", ".join(f"{name}={value}" for name, value in told.items()) or "no augmentation"


def lay_out(
    made: Draws,
    captions: Callable[[Any, int], list[str]],
    mixed: bool,
    title: list[str],
    drawn: Callable[[np.ndarray, Any], np.ndarray] | None = None,
) -> Any:
    """Place images and words on a figure with pixel accuracy.

    Args:
      made: the images and their targets.
      captions: gives the targets in words, with at most as many letters as it is given.
      mixed: whether images are mixed; then each has a caption.
      title: lines above the images.
      drawn: draws a target into its image (`jaxcnn.tasks.moving.Movable.drawn`), if that is wanted.
    """
    from matplotlib.figure import Figure

    draws, examples = made.image.shape[:2]
    unchanged, augmented = in_unit_interval(made)
    if drawn is not None:
        unchanged = _with_targets(unchanged, made.target, drawn)
        augmented = np.stack([_with_targets(*each, drawn) for each in zip(augmented, made.targets, strict=True)])
    original = [to_cell(each) for each in unchanged]
    height, width = original[0].shape[:2]
    letters = int((width + GAP) / CHARACTER)
    own = captions(made.target, letters)
    targets = [captions(target, letters) for target in made.targets]
    lines = 1
    if mixed and max(len(text) for column in targets for text in column) > letters:
        lines, targets = 2, [[text.replace(" / ", "\n") for text in column] for column in targets]

    left = [MARGIN + column * (width + GAP) + (GAP_AFTER_ORIGINAL - GAP) * (column > 0) for column in range(draws + 1)]
    page_width = left[-1] + width + MARGIN
    heading = [line for text in title for line in textwrap.wrap(text, int((page_width - 2 * MARGIN) / CHARACTER))]
    first = MARGIN + LINE * (len(heading) + 2)
    pitch = height + LINE * lines + GAP
    page_height = first + pitch * examples + MARGIN - GAP

    page = np.ones((page_height, page_width, 3), np.float32)
    figure = Figure(figsize=(page_width / DPI, page_height / DPI), dpi=DPI)

    def write(x: float, y: float, text: str, **style: Any) -> None:
        style = dict[str, Any](va="top", fontsize=FONT_POINTS, color="#222222", parse_math=False) | style
        figure.text(x / page_width, 1 - y / page_height, text, **style)

    for number, text in enumerate(heading):
        write(MARGIN, MARGIN + LINE * number, text)
    for column, x in enumerate(left):
        name = "original" if column == 0 else f"step {column - 1}"
        write(x + width / 2, first - 5, name, ha="center", va="bottom", color="#777777")
        for row in range(examples):
            y = first + row * pitch
            cell = original[row] if column == 0 else to_cell(augmented[column - 1, row])
            page[y - 1 : y + height + 1, x - 1 : x + width + 1] = OUTLINE
            page[y : y + height, x : x + width] = cell
            if column == 0 or mixed:
                text = own[row] if column == 0 else targets[column - 1][row]
                write(x + width / 2, y + height + 3, text, ha="center")
    figure.figimage(page, 0, 0, origin="upper", zorder=-1)
    return figure


def _with_targets(images: np.ndarray, targets: Any, drawn: Callable[[np.ndarray, Any], np.ndarray]) -> np.ndarray:
    """Images [n, H, W, C] in [0, 1] as RGB with their targets drawn into them."""
    import jax

    pixels = [(255 * np.clip(_as_rgb(image), 0, 1)).round().astype(np.uint8) for image in images]
    rows = (jax.tree.map(operator.itemgetter(row), targets) for row in range(len(images)))
    return np.stack([drawn(image, target) for image, target in zip(pixels, rows, strict=True)]) / 255


def _as_rgb(image: np.ndarray) -> np.ndarray:
    return image[..., :3] if image.shape[-1] >= 3 else image[..., :1].repeat(3, axis=-1)


def in_unit_interval(made: Draws) -> tuple[np.ndarray, np.ndarray]:
    """Originals and augmented images in [0, 1]; floats by the lowest and the highest of the originals."""
    if made.original.dtype.kind == "u":
        return made.original / np.iinfo(made.original.dtype).max, made.image
    low, high = made.original.min(), made.original.max()
    scale = 1 / max(high - low, np.finfo(np.float32).tiny)
    return (made.original - low) * scale, (made.image - low) * scale


def to_cell(image: np.ndarray) -> np.ndarray:
    """An image [H, W, C] in [0, 1] as RGB [h, w, 3] for the sheet, enlarged by a whole factor if it fits."""
    rgb = _as_rgb(image)
    longest = max(rgb.shape[:2])
    if longest <= LARGEST_CELL:
        zoom = max(1, round(CELL / longest))
        return np.clip(rgb, 0, 1).repeat(zoom, axis=0).repeat(zoom, axis=1)
    from PIL import Image

    small = [max(1, side * LARGEST_CELL // longest) for side in rgb.shape[:2]]
    picture = Image.fromarray(np.round(np.clip(rgb, 0, 1) * 255).astype(np.uint8))
    return np.asarray(picture.resize((small[1], small[0]), Image.Resampling.BOX)) / 255
