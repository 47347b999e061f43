"""Makes explain_goldens.npz: SmoothGrad, LIME, ROAD and relevance in residual networks, by other libraries, in float64.

Captum's SmoothGrad and LIME, LIME by its authors' package, ROAD by pytorch-grad-cam, relevance by zennit. The network
is that of `make_captum_resnet_goldens.py`; relevance also goes through the ResNet50 of `draw`. Where chance decides,
both sides take the draws of `draw`, or those of jaxcnn.

pip install torch==2.13.0 torchvision==0.28.0 captum==0.9.0 grad-cam==1.5.7 zennit==0.5.1 lime==0.2.0.1 numpy
python tests/goldens/make_explain_goldens.py
"""

import contextlib
import pathlib
import sys
from unittest import mock

import captum
import draw
import numpy as np
import torch
from captum._utils.models.linear_model import SkLearnRidge
from captum.attr._core.lime import get_exp_kernel_similarity_function
from lime.lime_image import LimeImageExplainer
from make_captum_goldens import last
from make_captum_resnet_goldens import CASE, IMAGES, SIDE, Bottleneck, Network
from make_torch_goldens import jax_layout, leaves, torch_layout
from pytorch_grad_cam.metrics import road
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget
from torch import nn
from zennit.canonizers import AttributeCanonizer, SequentialMergeBatchNorm
from zennit.composites import LayerMapComposite
from zennit.layer import Sum
from zennit.rules import Gamma, Norm, Pass

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
from benchmarks import torch_networks

SAMPLES, NOISE = 7, 0.15  # of SmoothGrad
SEGMENTS = np.add.outer(np.arange(SIDE) // 4 * 3, np.arange(SIDE) // 5)  # nine, of three sizes
FITTED, WIDTH, BASELINE, SEED = 40, 0.25, 0.1, 3  # images for the fit of LIME, width of its kernel
REMOVED = (30, 80)  # per cent of the pixels
GAMMA, DEEP = 0.25, "resnet50_cifar"


@contextlib.contextmanager
def float64():
    """Libraries that round to float32 keep float64."""
    with (
        mock.patch.object(torch, "float", torch.float64),
        mock.patch.object(torch, "FloatTensor", torch.DoubleTensor),
        mock.patch.object(torch.Tensor, "float", torch.Tensor.double),
        mock.patch.object(np, "float32", np.float64),
    ):
        torch.set_default_dtype(torch.float64)
        yield
        torch.set_default_dtype(torch.float32)


def first(values: np.ndarray) -> torch.Tensor:
    """Values with the channels first."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(values, -1, -3)))


def smoothgrad(net: nn.Module, images: np.ndarray, target: torch.Tensor) -> np.ndarray:
    """Captum's, image by image, since its noise has one deviation for all images."""
    noise = first(draw.generator(CASE, "noise").standard_normal((SAMPLES, *images.shape)))
    tunnel, found = captum.attr.NoiseTunnel(captum.attr.Saliency(net)), []
    for place, image in enumerate(images):
        drawn = lambda _, deviation, place=place: deviation * noise[:, place]  # noqa: E731
        with mock.patch.object(torch, "normal", drawn):
            found.append(
                tunnel.attribute(
                    first(image[None]), nt_samples=SAMPLES, stdevs=float(NOISE * np.ptp(image)),
                    target=int(target[place]), abs=False,
                )
            )  # fmt: skip
    return last(torch.cat(found))


class Draws:
    """What the LIME package draws, by the draws of jaxcnn."""

    def randint(self, low: int, high: int, size: int | None = None) -> np.ndarray | int:
        """The segments that are seen, all samples in one row."""
        return 0 if size is None else (np.random.default_rng(SEED).random(size) < 0.5).astype(int)


def lime(net: nn.Module, images: np.ndarray, target: torch.Tensor) -> dict[str, np.ndarray]:
    """The weights of the segments [n, segments], by the package of LIME's authors and by Captum."""
    explainer = LimeImageExplainer(kernel_width=WIDTH)
    explainer.random_state = Draws()
    of_authors, of_captum = [], []
    seen = Draws().randint(0, 2, FITTED * (SEGMENTS.max() + 1)).reshape(FITTED, -1)
    seen[0] = 1
    kernel = get_exp_kernel_similarity_function("cosine", WIDTH)

    def samples(*_, **__):
        yield from torch.from_numpy(seen)[:, None]

    by_captum = captum.attr.Lime(
        net, SkLearnRidge(alpha=1.0), lambda _, __, each, **___: kernel(torch.ones_like(each), each, None), samples
    )
    for image, place in zip(images, target.tolist(), strict=True):
        found = explainer.explain_instance(
            image, lambda each: net(first(each)).detach().numpy(), (place,), BASELINE, None, 10**6, FITTED,
            segmentation_fn=lambda _: SEGMENTS,
        ).local_exp[place]  # fmt: skip
        of_authors.append([weight for _, weight in sorted(found)])
        weights = by_captum.attribute(
            first(image[None]), BASELINE, place, feature_mask=torch.from_numpy(SEGMENTS)[None, None], n_samples=FITTED,
            return_input_shape=False,
        )  # fmt: skip
        of_captum.append(weights.numpy().ravel())
    return {"lime": np.array(of_authors), "lime_captum": np.array(of_captum)}


def removal(net: nn.Module, images: np.ndarray, target: torch.Tensor) -> dict[str, np.ndarray]:
    """Images whose most and least important pixels are removed, and the score of ROAD for them."""
    x, maps = first(images), np.abs(images).sum(-1)
    noise = first(np.random.default_rng(SEED).standard_normal(images.shape))
    impute = road.NoisyLinearImputer.__call__

    def with_noise(imputer, image: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        place = next(place for place in range(len(x)) if torch.equal(x[place], image))
        with mock.patch.object(torch, "randn_like", lambda _: noise[place][:, kept == 0]):
            return impute(imputer, image, kept)

    targets = [ClassifierOutputSoftmaxTarget(place) for place in target.tolist()]
    found = {}
    with mock.patch.object(road.NoisyLinearImputer, "__call__", with_noise):
        for share in REMOVED:
            remove = road.RemoveMostRelevantFirst(100 - share, road.NoisyLinearImputer())
            made = [remove(*each) for each in zip(x, torch.from_numpy(maps), strict=True)]
            found[f"road_without_{share}"] = last(torch.stack(made))
        found["road"] = road.ROADCombined()(x, maps, targets, net)
    return found


def with_sum(self, x: torch.Tensor) -> torch.Tensor:
    """A block of `torch_networks`, whose sum is a module, so that zennit sees it."""
    y = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))))))
    return self.relu(self.sum(torch.stack([y, x if self.downsample is None else self.downsample(x)], -1)))


def of_branch_with_sum(self, x: torch.Tensor) -> torch.Tensor:
    """The same for a block of `make_captum_resnet_goldens`."""
    return self.relu(self.sum(torch.stack([self.branch(x), self.shortcut(x)], -1)))


def mean_as_module(self, x: torch.Tensor) -> torch.Tensor:
    """The network of `make_captum_resnet_goldens`, whose mean is a module."""
    return self.classifier(self.mean(self.rest(self.second(self.first(x)))).flatten(1))


def as_modules(_: str, module: nn.Module) -> dict | None:
    """What a module needs, so that zennit sees each sum and each mean."""
    forward = {torch_networks.Bottleneck: with_sum, Bottleneck: of_branch_with_sum, Network: mean_as_module}
    if type(module) not in forward:
        return None
    more = {"mean": nn.AdaptiveAvgPool2d(1)} if isinstance(module, Network) else {"sum": Sum()}
    return more | {"forward": forward[type(module)].__get__(module)}


def without_shifts(net: nn.Module) -> nn.Module:
    """The network, its biases and the means of its BatchNorm now 0."""
    with torch.no_grad():
        for module in net.modules():
            if getattr(module, "bias", None) is not None:
                module.bias.zero_()
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.zero_()
    return net


def relevance(net: nn.Module, x: torch.Tensor, target: torch.Tensor, gamma: float = GAMMA) -> np.ndarray:
    """Relevance of pixels by the gamma rule."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var += module.eps  # zennit leaves the epsilon of a merged BatchNorm
            module.eps = 0.0
    norm = Norm(stabilizer=1e-15)
    rules = [
        ((nn.Conv2d, nn.Linear), Gamma(gamma, stabilizer=1e-15)), (nn.ReLU, Pass()),
        ((Sum, nn.AvgPool2d, nn.AdaptiveAvgPool2d), norm),
    ]  # fmt: skip
    canonizers = [SequentialMergeBatchNorm(), AttributeCanonizer(as_modules)]
    expected = net(x).detach()
    with LayerMapComposite(rules, canonizers=canonizers).context(net) as ruled:
        x = x.clone().requires_grad_()
        outputs = ruled(x)
        assert torch.allclose(outputs, expected, rtol=1e-9), "zennit's canonical form is another network"
        wanted = torch.nn.functional.one_hot(target, outputs.shape[1]) * outputs.detach()
        return last(torch.autograd.grad(outputs, x, wanted)[0])


def deep() -> nn.Module:
    """The ResNet50 of `draw`, in evaluation mode."""
    made, names = torch_networks.build(draw.CASES[DEEP][0] | {"width": draw.WIDTH}, draw.CLASSES)
    made.double()
    with torch.no_grad():
        for collection, tensors in zip(("params", "batch_stats"), leaves(made, names), strict=True):
            for path, (tensor, spatial) in tensors.items():
                value = draw.leaf(DEEP, collection, path, jax_layout(tensor.numpy(), spatial).shape)
                tensor.copy_(torch.from_numpy(torch_layout(value, spatial).copy()))
    return made.eval()


def main() -> None:
    """Write explain_goldens.npz beside this file."""
    images, labels = (each[:IMAGES] for each in draw.batch(CASE, SIDE))
    target = torch.from_numpy(labels)
    with float64():
        net = Network().eval()
        found = {"smoothgrad": smoothgrad(net, images, target)}
        found |= lime(net, images, target) | removal(net, images, target)
        found["lrp_0"] = relevance(Network().eval(), first(images), target, gamma=0.0)
        found["lrp"] = relevance(without_shifts(net), first(images), target)
        images, labels = (each[:IMAGES] for each in draw.batch(DEEP, draw.CASES[DEEP][1]))
        found["lrp_resnet50"] = relevance(without_shifts(deep()), first(images), torch.from_numpy(labels))
    for name, values in found.items():
        print(name, values.dtype, values.shape, np.abs(values).max())
    np.savez_compressed(pathlib.Path(__file__).with_name("explain_goldens.npz"), **found)


if __name__ == "__main__":
    main()
