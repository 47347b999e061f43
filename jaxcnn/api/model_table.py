"""`jaxcnn.summary`: the layers of a network with parameters, operations and memory."""

import dataclasses
import html

from jaxcnn.api import arguments
from jaxcnn.api.configs import Recipe, checked
from jaxcnn.api.errors import python_words
from jaxcnn.api.shown import table
from jaxcnn.config import Config, UserError
from jaxcnn.data.source import open_splits
from jaxcnn.learn import costs
from jaxcnn.learn.step_spec import StepSpec, spec_without_data
from jaxcnn.machine import plugins
from jaxcnn.train import network_of_weights, setup

_HEADER = ("layer", "kind", "output", "parameters", "MFLOP", "activations")
_SHAPE = "(height, width, channels)"
_UNITS = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


@dataclasses.dataclass(frozen=True)
class ModelTable:
    """The layers of a network; a notebook shows them as a table, and `print` too.

    Attributes:
      title: the network, its input and its batch.
      layers: the costs of each layer for one image, in the order of their calls.
      batch: images in a step, for the memory.
    """

    title: str
    layers: tuple[costs.Layer, ...]
    batch: int

    @property
    def parameters(self) -> int:
        """The number of parameters of all layers."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def flops(self) -> int:
        """The floating-point operations of the forward pass of one image."""
        return sum(layer.flops for layer in self.layers)

    @property
    def activation_bytes(self) -> int:
        """The bytes of the outputs of all layers for a batch: the most that a step keeps for its gradients."""
        return self.batch * sum(layer.output_bytes for layer in self.layers)

    def rows(self) -> list[tuple[str, ...]]:
        """The table as texts, with the sums in the last row."""
        shown = [
            (
                layer.path,
                layer.kind,
                "x".join(map(str, layer.output)),
                f"{layer.parameters:,}" + (" (frozen)" if not layer.trained else ""),
                f"{layer.flops / 1e6:,.2f}" if layer.flops else "",
                _bytes(self.batch * layer.output_bytes),
            )
            for layer in self.layers
        ]
        frozen = self.parameters - sum(layer.trained for layer in self.layers)
        parameters = f"{self.parameters:,}" + (f" ({frozen:,} frozen)" if frozen else "")
        return [*shown, ("all", "", "", parameters, f"{self.flops / 1e6:,.2f}", _bytes(self.activation_bytes))]

    def __str__(self) -> str:
        rows = [_HEADER, *self.rows()]
        widths = [max(len(row[k]) for row in rows) for k in range(len(_HEADER))]
        lines = [
            "  ".join(
                f"{text:<{width}}" if k < 3 else f"{text:>{width}}"
                for k, (text, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        ]
        rule = "-" * max(map(len, lines))
        return "\n".join(
            [self.title, rule, lines[0].rstrip(), rule, *(each.rstrip() for each in lines[1:-1]), rule, lines[-1]]
        )

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(self.title)}</p>" + table(_HEADER, self.rows())


def _bytes(count: int) -> str:
    unit, name = next((each for each in _UNITS if count >= each[0]), (1, "B"))
    return f"{count / unit:.3g} {name}" if count else ""


def summary(config: Recipe, image_shape: tuple[int, int, int] | None = None, outputs: int = 0) -> ModelTable:
    """The layers of the network of a config, with their parameters, operations and memory.

        print(jaxcnn.summary("resnet50", image_shape=(224, 224, 3), outputs=1000))

    Args:
      config: what `jaxcnn.config` returns, or the name of a recipe.
      image_shape: (height, width, channels) of the images; None: those of the config's data, which is opened.
      outputs: number of classes, or of numbers; 0: that of the data, or of `config.model.num_classes`.

    Raises:
      UserError: the config has mistakes, its data cannot be opened, or network and images do not fit.
    """
    arguments.number("outputs", outputs, 0)
    if image_shape is not None:
        sides = arguments.several("image_shape", image_shape, _SHAPE)
        if len(sides) != 3:
            raise UserError(f"image_shape must be {_SHAPE}, not {len(sides)} numbers")
        for side in sides:
            arguments.number("image_shape", side, 1)
    with python_words():
        wanted = network_of_weights.of(checked(config))
        plugins.check(wanted)
        spec = _spec(wanted, image_shape, outputs or wanted.model.num_classes)
        height, width, channels = spec.image_shape
        title = (
            f"{wanted.model.name}: images {height}x{width}x{channels}, {spec.task.targets.outputs} outputs; "
            f"MFLOP for one image, activations for a batch of {wanted.global_batch_size}"
        )
        return ModelTable(title, tuple(costs.layers(spec)), wanted.global_batch_size)


def _spec(config: Config, image_shape: tuple[int, int, int] | None, outputs: int) -> StepSpec:
    if image_shape is None:
        return setup.spec_on(config, open_splits(config.data, config.task))
    if not outputs:
        raise UserError(
            "give the number of classes too, since no data is opened: outputs=…, or config.model.num_classes"
        )
    return spec_without_data(config, image_shape, outputs, train_examples=config.global_batch_size)
