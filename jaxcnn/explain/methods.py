"""The table of methods: what each is called, where it comes from, and what it returns."""

import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, get_args, get_origin

import numpy as np
from jaxtyping import Float

from jaxcnn.config import UserError, ranges
from jaxcnn.explain import attended, cams, controls, gradients, perturbations, relevance
from jaxcnn.text import shown

SIGNED, POSITIVE, SIZE = "signed", "positive", "size"


@dataclasses.dataclass(frozen=True)
class Method:
    """A method of explanation.

    Attributes:
      call: `(network, images, target, …) -> values`, [n, h, w, c] or [n, h, w].
      title: its name for people.
      source: the paper, or where a control comes from.
      gives: SIGNED: what speaks for the output is above 0, what speaks against it below; POSITIVE: only what speaks for
        it; SIZE: how strongly the output depends on a pixel, whatever the direction.
      needs: further inputs: "layer", the layer of the maps; "gate", an attention layer; "references", training images;
        "probability", which makes probabilities of outputs; or what the network must have: "relu".
      takes: whether it takes a `baseline`.
      adds_up: the change of the output that the values should add up to, from (network, images, target, arguments),
        [n]; None: they need not.
      loses: whether its values lack a part of this change by their rule.
      control: whether it ignores the network, so that a real method must do better.
    """

    call: Callable[..., Any]
    title: str
    source: str
    gives: str
    needs: tuple[str, ...] = ()
    takes: bool = False
    adds_up: Callable[[Any, Any, Any, Mapping[str, Any]], Float[np.ndarray, " n"]] | None = None
    loses: bool = False
    control: bool = False


def _since_baseline(network: Any, images: Any, target: Any, given: Mapping[str, Any]) -> Float[np.ndarray, " n"]:
    return gradients.change_since(network, images, target, given["baseline"])


def _since_references(network: Any, images: Any, target: Any, given: Mapping[str, Any]) -> Float[np.ndarray, " n"]:
    return gradients.change_since_references(network, images, target, given["references"])


def _output(network: Any, images: Any, target: Any, given: Mapping[str, Any]) -> Float[np.ndarray, " n"]:
    del given
    return np.asarray(network.scores(images, target))


_CAM = ("layer",)
METHODS: dict[str, Method] = {
    "gradient": Method(gradients.gradient, "Gradient", "Simonyan et al. 2014", SIZE),
    "input_x_gradient": Method(gradients.input_x_gradient, "Input × gradient", "Shrikumar et al. 2016", SIGNED),
    "smoothgrad": Method(gradients.smoothgrad, "SmoothGrad", "Smilkov et al. 2017", SIZE),
    "integrated_gradients": Method(
        gradients.integrated_gradients,
        "Integrated gradients",
        "Sundararajan et al. 2017",
        SIGNED,
        takes=True,
        adds_up=_since_baseline,
    ),
    "expected_gradients": Method(
        gradients.expected_gradients,
        "Expected gradients",
        "Erion et al. 2021",
        SIGNED,
        ("references",),
        adds_up=_since_references,
    ),
    "guided_backprop": Method(
        gradients.guided_backprop, "Guided backpropagation", "Springenberg et al. 2015", SIZE, ("relu",)
    ),
    "lrp": Method(
        relevance.lrp, "Layer-wise relevance propagation", "Montavon et al. 2019", SIGNED, adds_up=_output, loses=True
    ),
    "gradcam": Method(cams.gradcam, "Grad-CAM", "Selvaraju et al. 2017", POSITIVE, _CAM),
    "gradcam_plus_plus": Method(cams.gradcam_plus_plus, "Grad-CAM++", "Chattopadhay et al. 2018", POSITIVE, _CAM),
    "scorecam": Method(cams.scorecam, "Score-CAM", "Wang et al. 2020", POSITIVE, _CAM),
    "occlusion": Method(perturbations.occlusion, "Occlusion", "Zeiler & Fergus 2014", SIGNED, takes=True),
    "rise": Method(perturbations.rise, "RISE", "Petsiuk et al. 2018", POSITIVE, ("probability",), takes=True),
    "kernel_shap": Method(perturbations.kernel_shap, "Kernel SHAP", "Lundberg & Lee 2017", SIGNED, takes=True),
    "lime": Method(perturbations.lime, "LIME", "Ribeiro et al. 2016", SIGNED, takes=True),
    "attention": Method(attended.attention, "Attention", "the network's own weights", POSITIVE, ("gate",)),
    "edges": Method(controls.edges, "Edges (control)", "Sobel filter", SIZE, control=True),
    "random": Method(controls.random, "Random (control)", "uniform numbers", SIZE, control=True),
}
_GIVEN = ("layer", "baseline", "enlarge", "probability", "centred")  # arguments that are no options
DEFAULT = ("gradcam", "integrated_gradients", "smoothgrad", "occlusion")


def find(name: str) -> Method:
    """The method of a name.

    Raises:
      UserError: there is none.
    """
    if not isinstance(name, str) or name not in METHODS:
        raise UserError(f"there is no method {shown(repr(name)):.100}; there are {', '.join(METHODS)}")
    return METHODS[name]


def checked(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a method, whose numbers are of the kind and in the range that its function declares.

    Raises:
      UserError: there is no such method or option, or a number is impossible.
    """
    known = {
        each.name: each.annotation
        for each in inspect.signature(find(name).call).parameters.values()
        if each.kind == each.KEYWORD_ONLY and each.name not in _GIVEN
    }
    made = {}
    for option, value in options.items():
        if option not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise UserError(f"method {name!r} has no option {option!r}; {has}")
        made[option] = value
        if get_origin(known[option]) is Annotated:
            made[option] = _number(f"{name}.{option}", value, get_args(known[option])[0])
            for line in ranges.violations(f"{name}.{option}", made[option], ranges.of_hint(known[option])):
                raise UserError(line)
    return made


def _number(name: str, value: Any, kind: type) -> int | float:
    number = value.item() if isinstance(value, np.generic) else value
    if isinstance(number, bool) or not isinstance(number, (int, float) if kind is float else int):
        wanted = "a number" if kind is float else "a whole number"
        raise UserError(f"{name} must be {wanted}, but is {shown(repr(value)):.200}")
    if isinstance(number, int) and abs(number) >= 2**63:  # also too large for a float, or for a line of text
        raise UserError(f"{name} must be below 2**63 in size, but has {len(f'{abs(number):x}')} hexadecimal digits")
    if not math.isfinite(number):
        raise UserError(f"{name} must be a finite number, but is {number}")
    return kind(number)


def as_maps(method: Method, values: Any) -> Float[np.ndarray, "n h w"]:
    """The values of a method as one number for each pixel.

    Of the channels of a pixel, signed values are added, since those of all pixels add up to the output; of sizes, the
    largest is taken, as in Simonyan et al. 2014.
    """
    values = np.asarray(values)
    if values.ndim == 3:
        return values
    return values.sum(-1) if method.gives == SIGNED else np.abs(values).max(-1)
