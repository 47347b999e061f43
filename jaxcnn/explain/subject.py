"""A trained network that is asked why: which output is explained, by which method, against which images."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Num

from jaxcnn.config import UserError
from jaxcnn.data import augment, place
from jaxcnn.data.source import Splits, open_splits
from jaxcnn.explain import attended, inside, methods, network
from jaxcnn.explain.explanation import Explanation
from jaxcnn.learn import network as learnt
from jaxcnn.learn.step_spec import StepSpec
from jaxcnn.tasks.task import FindingBoxes, FindingWithin, Task
from jaxcnn.tasks.temperature import temperature_of
from jaxcnn.text import listed, shown
from jaxcnn.train.trained import Trained

BATCH, BATCH_PIXELS = 64, 2**22  # images explained together; random numbers depend on an image's place among them
PYRAMID = "pyramid_in2"  # of Mask R-CNN: maps of 1/16 of the image, from which the finer levels are made, too
REFERENCES = 50  # images of the training split, for expected gradients
PREDICTED, LABEL = "predicted", "label"


def finding_boxes(task: Task) -> FindingBoxes | None:
    """The evaluation of a task, if it finds boxes, be it among outputs or within the network."""
    return task.evaluation if isinstance(task.evaluation, FindingBoxes) else None


@dataclasses.dataclass(frozen=True)
class OfRun:
    """The network of a run as a function of normalised images."""

    spec: StepSpec

    def __call__(self, variables: Any, images: Any) -> Any:
        """The outputs that can be explained, [n, k]."""
        model: Any = learnt.network(self.spec)
        outputs, task = model.apply(variables, images, train=False), self.spec.task
        if task.finds_maps is not None:
            return task.finds_maps.over_image(outputs)
        if (finds := finding_boxes(task)) is not None:
            return finds.of_places(outputs)[1].reshape(len(images), -1)
        return outputs


@dataclasses.dataclass(frozen=True)
class _BoxesOfRun:
    """The boxes of a detector, one after another, as a function of normalised images."""

    spec: StepSpec

    def __call__(self, variables: Any, images: Any) -> Any:
        model: Any = learnt.network(self.spec)
        outputs = model.apply(variables, images, train=False)
        finds = finding_boxes(self.spec.task)
        assert finds is not None
        return finds.of_places(outputs)[0].reshape(len(images), -1)


class Subject:
    """A trained network, ready to be explained.

    A detector has an output for each class at each of its places, one place after another: the explained output is the
    logit of one box, also when the image changes. For Mask R-CNN, whose boxes have no places, it is the log-odds of the
    highest score of a class, whichever box has it. For a network that answers maps, it is a class's mean logit over all
    pixels (Vinogradova et al. 2020, "Towards Interpretable Semantic Segmentation via
    Gradient-weighted Class Activation Mapping", arXiv:2002.11434, with the whole image as the set of pixels).

    Attributes:
      trained: the network of a run.
      network: the same as methods see it.
      class_names: the names of its outputs; for a detector, those of each place.
      image_shape: (H, W, C).
      has_boxes: whether it is a detector.
      has_maps: whether it has a class for each pixel.
      within: whether it finds boxes within itself, as Mask R-CNN does.
    """

    def __init__(self, trained: Trained, rows: int = 0) -> None:
        task = trained.spec.task
        if task.finds is not None and finding_boxes(task) is None and task.finds_maps is None:
            raise UserError(
                f"a run of config.model.name={trained.config.model.name!r} answers neither outputs, nor boxes of "
                "places, nor maps: it cannot be explained"
            )
        self.trained, self.has_boxes = trained, finding_boxes(task) is not None
        self.has_maps = task.finds_maps is not None
        self.within = self.has_boxes and isinstance(task.evaluation, FindingWithin)
        self.class_names, self.image_shape = trained.class_names, trained.spec.image_shape
        mesh = trained.mesh if trained.mesh.size > 1 else None
        self.network = network.make(OfRun(trained.spec), trained.variables, self.image_shape, mesh, rows)

    @property
    def batch(self) -> int:
        """How many images are explained together: fewer large ones."""
        return max(1, min(BATCH, BATCH_PIXELS // (self.image_shape[0] * self.image_shape[1])))

    @functools.cached_property
    def layers(self) -> list[inside.Layer]:
        """The layers with feature maps, in order."""
        return inside.layers(self.network.apply, self.network.variables, self.image_shape)

    @functools.cached_property
    def gates(self) -> list[attended.Gate]:
        """The attention layers that weigh pixels, in order."""
        return attended.gates(self.trained.spec, self.trained.variables)

    @functools.cached_property
    def _guided_outputs(self) -> Any:
        """The shape of what the network with guided ReLUs returns, traced once; raises UserError if it has no ReLU."""
        images = jax.ShapeDtypeStruct((1, *self.image_shape), jnp.float32)
        return jax.eval_shape(self.network.with_guided_relus().apply, self.network.variables, images)

    def normalised(self, pixels: Num[np.ndarray, "n h w c"]) -> Float[np.ndarray, "n h w c"]:
        """Pixels as the network sees them."""
        constants = self.trained.constants
        mean, std = (jnp.asarray(np.asarray(each)) for each in (constants.mean, constants.std))
        return np.asarray(augment.normalize(jnp.asarray(pixels), mean, std))

    def baseline(self, wanted: Any) -> Float[np.ndarray, "1 h w c"] | float:
        """The image without information that `wanted` names: "mean", "black", or pixels [H, W, C].

        Raises:
          UserError: it is neither.
        """
        if isinstance(wanted, str):
            if wanted not in ("mean", "black"):
                raise UserError(f"--baseline={wanted}: it must be mean or black")
            if wanted == "mean":
                return 0.0
            wanted = np.zeros(self.image_shape, self.trained.spec.image_dtype)
        pixels = np.asarray(wanted)
        if pixels.shape != self.image_shape or pixels.dtype != self.trained.spec.image_dtype:
            raise UserError(
                f"baseline is {pixels.dtype} {pixels.shape}; it must be mean, black or pixels "
                f"{self.trained.spec.image_dtype} {self.image_shape}"
            )
        return self.normalised(pixels[None])

    def outputs(self, images: Float[np.ndarray, "n h w c"]) -> Float[np.ndarray, "n k"]:
        """The outputs of normalised images."""
        return np.asarray(self.network.outputs(images))

    def probability(self, outputs: Any) -> Any:
        """The probability of each output, of the same shape; for tasks without probabilities, the outputs.

        That of a class is what `predict` tells: with the temperature that was fitted to validation.
        """
        if self.trained.config.task.name == "classification":
            return jax.nn.softmax(outputs / np.float32(temperature_of(self.trained.fitted)))
        if self.has_maps:
            return jax.nn.softmax(outputs)
        alone = self.trained.config.task.name == "multilabel" or self.has_boxes
        return jax.nn.sigmoid(outputs) if alone else outputs

    def classes(self, target: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """The class of each output; it is the output itself but for detectors."""
        return target % len(self.class_names)

    def boxes(self, images: Float[np.ndarray, "n h w c"], target: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n 4"]:
        """The explained box of each image of a detector: left, top, right, bottom in pixels, cut off at the border."""
        of_all = dataclasses.replace(self.network, apply=_BoxesOfRun(self.trained.spec)).outputs(images)
        box = target if self.within else target // len(self.class_names)  # of each class, or of each place
        of_each = np.asarray(of_all).reshape(len(images), -1, 4)[np.arange(len(images)), box]
        height, width = self.image_shape[:2]
        return np.clip(of_each, 0, [width, height, width, height])

    def targets(
        self, wanted: Any, outputs: Float[np.ndarray, "n k"], labels: Sequence[int | None] = ()
    ) -> Int[np.ndarray, " n"]:
        """The output to explain for each image.

        Args:
          wanted: "predicted": that of the highest output; "label": the true class; the name or number of an output; or
            one of these last for each image. A whole number is the place of an output, even if another one has it as
            its name; text is a name, or else such a number. Of a detector, a class is its surest box of that class. Of
            a network that answers maps, "predicted" leaves out the first class, which is the background.
          outputs: those of the images.
          labels: the true class of each image, or None where it is not known.

        Raises:
          UserError: there is no such output, or it does not follow from the images.
        """
        if isinstance(wanted, str) and wanted == PREDICTED:
            if self.trained.config.task.name == "regression" and len(self.class_names) > 1:
                raise UserError(
                    f"--target=predicted: a regression has no highest output; choose one of {self._names()}"
                )
            first = int(self.has_maps)
            return (outputs[:, first:].argmax(1) + first).astype(np.int32)
        if isinstance(wanted, str) and wanted == LABEL:
            self.check_labels(labels, len(outputs))
            return np.array(labels, np.int32)
        if np.ndim(wanted) and len(wanted) != len(outputs):
            raise UserError(f"target has {len(wanted)} outputs for {len(outputs)} images")
        each = [self._number(one) for one in wanted] if np.ndim(wanted) else [self._number(wanted)] * len(outputs)
        if not self.has_boxes:
            return np.array(each, np.int32)
        of_class = outputs.reshape(len(outputs), -1, len(self.class_names))[np.arange(len(outputs)), :, each]
        return (of_class.argmax(1) * len(self.class_names) + each).astype(np.int32)

    def check_labels(self, labels: Sequence[int | None], count: int) -> None:
        """Refuse `--target=label` where not each of so many images has one true class that is known."""
        if (name := self.trained.config.task.name) != "classification":
            raise UserError(
                f"--target=label: an image has no single true class with config.task.name={name!r}; name an output: "
                f"one of {self._names()}"
            )
        if len(labels) != count or any(label is None for label in labels):
            raise UserError(
                "--target=label: the classes of the images are not known; take images of a split, or files in "
                "folders named like the classes, or set --target=predicted"
            )

    def _number(self, wanted: Any) -> int:
        """The output that a whole number counts to, or that has a name; of text, a name goes before a number."""
        whole = isinstance(wanted, (int, np.integer)) and not isinstance(wanted, bool)
        if not whole and str(wanted) in self.class_names:
            return self.class_names.index(str(wanted))
        if str(wanted).isdecimal() and int(wanted) < len(self.class_names):
            return int(wanted)
        raise UserError(f"--target={shown(str(wanted))}: the network has no such output; it has {self._names()}")

    def _names(self) -> str:
        return listed(list(self.class_names), 12)

    @functools.cached_property
    def splits(self) -> Splits:
        """The data of the run. Raises UserError if it is not there."""
        data = self.trained.config.data
        if not place.is_ready(data):
            raise UserError(f"config.data.source={data.source!r}: no data was found there")
        return open_splits(data, self.trained.config.task)

    @functools.cached_property
    def references(self) -> Float[np.ndarray, "r h w c"]:
        """Random images of the training split, normalised. Raises UserError if the data of the run is not there."""
        split = self.splits.train
        chosen = np.random.Generator(np.random.PCG64(0)).permutation(len(split))[:REFERENCES]
        return self.normalised(split.read(np.sort(chosen)))

    def explain(
        self,
        name: str,
        images: Float[np.ndarray, "n h w c"],
        target: Int[np.ndarray, " n"],
        *,
        layer: str = "",
        baseline: Any = "mean",
        using: network.Network | None = None,
        **options: Any,
    ) -> Explanation:
        """The values that a method gives for normalised images.

        Args:
          name: name of the method.
          images: as from `normalised`.
          target: the output to explain for each.
          layer: layer of a class activation map or of attention; empty: `choose` of `inside` or `attended` takes one.
          baseline: colour of hidden pixels, for methods that have one; see `baseline`.
          using: another network of the same function, such as one with random variables.
          options: arguments of the method, such as `steps`.

        Raises:
          UserError: there is no such method, layer or option, the network cannot have the method, or values are not
            finite.
        """
        method, given = self.prepared(name, layer=layer, baseline=baseline, **options)
        net, values, changes = using or self.network, [], []
        for start in range(0, len(images), self.batch):
            part, wanted = images[start : start + self.batch], target[start : start + self.batch]
            own = {k: v[start : start + self.batch] for k, v in given.items() if k == "segments" and np.ndim(v) == 3}
            values.append(np.asarray(method.call(net, part, wanted, **given | own)))
            if not np.isfinite(values[-1]).all():
                raise UserError(
                    f"method {name!r} gave values that are no finite numbers: the network's outputs overflow"
                )
            if method.adds_up and using is None:
                changes.append(method.adds_up(net, part, wanted, given))
        whole, chosen = np.concatenate(values), given["layer"].name if "layer" in given else ""
        change = np.concatenate(changes) if changes else None
        gap = None if change is None else np.asarray(whole.sum((1, 2, 3)) - change)
        return Explanation(name, methods.as_maps(method, whole), whole, np.asarray(target), chosen, gap, change)

    def prepared(
        self, name: str, *, layer: str = "", baseline: Any = "mean", **options: Any
    ) -> tuple[methods.Method, dict[str, Any]]:
        """A method and all its arguments but the images, as for `explain`; raises UserError as it does."""
        method = methods.find(name)
        given = methods.checked(name, options)
        if layer and not {"layer", "gate"} & set(method.needs):
            raise UserError(f"method {name!r} looks at no layer; leave --layer={layer} out")
        if method.takes:
            given["baseline"] = self.baseline(baseline)
        elif not (isinstance(baseline, str) and baseline == "mean"):
            raise UserError(f"method {name!r} hides no pixels; leave --baseline out")
        if "references" in method.needs:
            given["references"] = self._references(given.get("references"))
        if "probability" in method.needs:
            given |= {"probability": self.probability, "centred": self.trained.config.task.name == "regression"}
        if "relu" in method.needs:
            _ = self._guided_outputs
        if "layer" in method.needs:
            # Maps of the image's own size, just before a class for each pixel, would show no more than these classes.
            default = learnt.mapped_of(self.trained.spec) or (PYRAMID if self.within else "")
            given["layer"] = inside.choose(self.layers, layer or default, coarser=self.has_maps)
        if "gate" in method.needs:
            given["layer"] = attended.choose(self.gates, layer)
        return method, given

    def _references(self, wanted: Any) -> Float[np.ndarray, "r h w c"]:
        if wanted is None:
            return self.references
        array = np.asarray(wanted)
        if array.dtype.kind != "f" or array.shape[1:] != self.image_shape or not len(array):
            raise UserError(
                f"references are {array.dtype} {array.shape}; they must be normalised images, float "
                f"[r, {', '.join(map(str, self.image_shape))}]"
            )
        return array

    def initial(self, seed: int = 0) -> Any:
        """Variables of the network drawn anew.

        Scales of a normalisation that training starts at 0, such as the last ones of residual blocks, are 1: at 0 a
        block is switched off, whatever its other weights are.
        """
        model: Any = learnt.network(self.trained.spec)
        made = jax.jit(model.init)(jax.random.key(seed), jnp.zeros((1, *self.image_shape), jnp.float32))
        made = jax.tree_util.tree_map_with_path(_switched_on, made)
        # Placed as the trained ones, so that the same programs take them.
        return jax.tree.map(
            lambda drawn, trained: jax.device_put(drawn, trained.sharding), made, self.network.variables
        )


def _switched_on(path: Sequence[Any], leaf: Any) -> Any:
    """A leaf of variables drawn anew; 1 if it is a scale that is 0 everywhere."""
    is_scale = str(getattr(path[-1], "key", path[-1])) == "scale"
    return jnp.where(jnp.any(leaf != 0), leaf, 1) if is_scale else leaf
