"""Makes captum_goldens.npz: what Captum, pytorch-grad-cam and zennit compute for an AlexNet of `draw`, in float64.

pip install torch==2.13.0 captum==0.9.0 grad-cam==1.5.7 zennit==0.5.1 torchvision numpy
python tests/goldens/make_captum_goldens.py
"""

import pathlib
import sys

import captum
import draw
import numpy as np
import torch
from make_torch_goldens import jax_layout, leaves, torch_layout
from pytorch_grad_cam import GradCAMPlusPlus, ScoreCAM
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.composites import LayerMapComposite
from zennit.rules import Gamma, Pass

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
from benchmarks import torch_networks

CASE, IMAGES, STEPS, SEED = "alexnet_cifar_bn", 2, 20, 0
GAMMA = 0.25
LAYERS = {"bn2": 6, "bn5": 16}  # the ReLU after it, among the features
THIN = 3  # every third row and column of values for each pixel is kept


def network() -> torch.nn.Module:
    """The network with the weights of `draw`, in evaluation mode."""
    fields, _ = draw.CASES[CASE]
    made, names = torch_networks.build(fields | {"width": draw.WIDTH}, draw.CLASSES)
    made.double()
    with torch.no_grad():
        for collection, tensors in zip(("params", "batch_stats"), leaves(made, names), strict=True):
            for path, (tensor, spatial) in tensors.items():
                value = draw.leaf(CASE, collection, path, jax_layout(tensor.numpy(), spatial).shape)
                tensor.copy_(torch.from_numpy(torch_layout(value, spatial).copy()))
    return made.eval()


class Upsampling(torch.nn.Upsample):
    """Interpolation between the centres of pixels, as in all our maps; Score-CAM's own aligns the corners."""

    def __init__(self, size: torch.Size):
        super().__init__(size, mode="bilinear", align_corners=False)


def last(values: torch.Tensor) -> np.ndarray:
    """Values with the channels last."""
    return values.detach().numpy().transpose(0, 2, 3, 1)


def relevance(x: torch.Tensor, target: torch.Tensor) -> np.ndarray:
    """Relevance of pixels by the gamma rule, for the network without biases and shifts, as zennit hands theirs on."""
    net = network()
    with torch.no_grad():
        for module in net.modules():
            if getattr(module, "bias", None) is not None:
                module.bias.zero_()
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.zero_()
                module.running_var += module.eps  # zennit leaves the epsilon of a merged BatchNorm
                module.eps = 0.0
    rule = Gamma(GAMMA, stabilizer=1e-15)
    rules = [((torch.nn.Conv2d, torch.nn.Linear), rule), (torch.nn.ReLU, Pass())]
    with LayerMapComposite(rules, canonizers=[SequentialMergeBatchNorm()]).context(net) as ruled:
        x = x.clone().requires_grad_()
        outputs = ruled(x)
        wanted = torch.nn.functional.one_hot(target, outputs.shape[1]) * outputs.detach()
        return last(torch.autograd.grad(outputs, x, wanted)[0])


def main() -> None:
    """Write captum_goldens.npz beside this file."""
    net = network()
    images, labels = draw.batch(CASE, draw.CASES[CASE][1])
    x, target = torch.from_numpy(images[:IMAGES].transpose(0, 3, 1, 2).copy()), torch.from_numpy(labels[:IMAGES])
    attr = captum.attr
    found = {"outputs": net(x).detach().numpy()}

    pixels = {
        "gradient": attr.Saliency(net).attribute(x.clone(), target, abs=False),
        "input_x_gradient": attr.InputXGradient(net).attribute(x.clone(), target),
        "integrated_gradients": attr.IntegratedGradients(net).attribute(
            x, 0.5 * torch.ones_like(x), target, n_steps=STEPS
        ),
        "guided_backprop": attr.GuidedBackprop(net).attribute(x.clone(), target),
        "occlusion": attr.Occlusion(net).attribute(x, (3, 10, 10), (3, 7, 7), 0.25, target),
    }
    found |= {name: last(values)[:, ::THIN, ::THIN] for name, values in pixels.items()}
    found["lrp"] = relevance(x, target)[:, ::THIN, ::THIN]
    found["occlusion"] = found["occlusion"][..., 0]

    segments = np.add.outer(np.arange(32) // 11 * 2, np.arange(32) // 16)  # six
    shapley = attr.ShapleyValues(net).attribute(x, 0.1, target, feature_mask=torch.from_numpy(segments)[None, None])
    found["shapley"] = shapley[:, 0].detach().numpy()[:, [0, 0, 11, 11, 22, 22], [0, 16] * 3]

    for name, place in LAYERS.items():
        layer = net[0][place]
        cam = attr.LayerGradCam(net, layer).attribute(x, target, relu_attributions=True).detach()
        found[f"gradcam_{name}"] = cam[:, 0].numpy()
        large = torch.nn.functional.interpolate(cam, (32, 32), mode="bilinear")
        found[f"gradcam_large_{name}"] = large[:, 0].numpy()[:, ::THIN, ::THIN]

        maps = []
        hook = layer.register_forward_hook(lambda _, __, output: maps.append(output))  # noqa: B023
        score = net(x)[torch.arange(IMAGES), target].sum()
        hook.remove()
        gradient = torch.autograd.grad(score, maps[0])[0].numpy()
        activations = maps[0].detach().numpy()
        plus = GradCAMPlusPlus(net, [layer])
        weights = plus.get_cam_weights(None, None, None, activations, gradient)
        found[f"gradcam_plus_plus_{name}"] = np.maximum((weights[:, :, None, None] * activations).sum(1), 0)
        plus.activations_and_grads.release()

        torch.nn.UpsamplingBilinear2d = Upsampling
        score_cam = ScoreCAM(net, [layer])
        targets = [lambda output, place=int(place): output[place] for place in target]
        weights = score_cam.get_cam_weights(x, None, targets, activations, None)
        found[f"scorecam_{name}"] = np.maximum((weights[:, :, None, None] * activations).sum(1), 0)
        score_cam.activations_and_grads.release()

    generator = np.random.default_rng(SEED)
    shifts = 0.1 * generator.standard_normal((7, *images[:IMAGES].shape))
    noise = torch.from_numpy(shifts.transpose(0, 1, 4, 2, 3).copy())
    explained = pixels["input_x_gradient"].detach()

    draws = iter(noise)
    infidelity = captum.metrics.infidelity(
        net, lambda inputs: ((each := next(draws)), inputs - each), x, explained, target=target, n_perturb_samples=7,
        max_examples_per_batch=IMAGES,
    )  # fmt: skip
    found["infidelity"] = infidelity.detach().numpy()
    draws = iter(noise)
    sensitivity = captum.metrics.sensitivity_max(
        attr.InputXGradient(net).attribute, x, lambda inputs: inputs + next(draws), n_perturb_samples=7,
        max_examples_per_batch=IMAGES, target=target,
    )  # fmt: skip
    found["sensitivity"] = sensitivity.detach().numpy()
    for name, values in found.items():
        print(name, values.shape, np.abs(values).max())
    np.savez_compressed(pathlib.Path(__file__).with_name("captum_goldens.npz"), **found)


if __name__ == "__main__":
    main()
