"""Makes torch_goldens.npz: what PyTorch computes for the networks of `jaxcnn.models`, in float64.

    pip install torch==2.13.0 numpy && python tests/goldens/make_torch_goldens.py

The networks are those of `benchmarks/torch_networks.py`, in torchvision's layout. For every case of `draw.CASES`:
logits in evaluation and training mode, fingerprints of all gradients, the losses of five steps of SGD (Nesterov, weight
decay on kernels), and fingerprints of parameters and running statistics after them. Of `draw.FORWARD_CASES`, the logits
in evaluation mode alone.
"""

import pathlib
import sys

import draw
import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
from benchmarks import torch_networks


def jax_layout(weight: np.ndarray, spatial: int) -> np.ndarray:
    """A torch weight in jaxcnn's layout; spatial: pixels that a dense layer's input was flattened from."""
    if weight.ndim == 4:
        return weight.transpose(2, 3, 1, 0)
    if weight.ndim == 2:  # PyTorch flattens (channel, pixel), jaxcnn (pixel, channel)
        outputs, inputs = weight.shape
        return weight.reshape(outputs, inputs // spatial, spatial).swapaxes(1, 2).reshape(outputs, inputs)
    return weight


def torch_layout(weight: np.ndarray, spatial: int) -> np.ndarray:
    """The inverse of `jax_layout`."""
    if weight.ndim == 4:
        return weight.transpose(3, 2, 0, 1)
    if weight.ndim == 2:
        outputs, inputs = weight.shape
        return weight.reshape(outputs, spatial, inputs // spatial).swapaxes(1, 2).reshape(outputs, inputs)
    return weight


def leaves(network: nn.Module, names: list[tuple[str, str]]) -> tuple[dict, dict]:
    """jaxcnn's path -> (torch tensor, spatial), of parameters and of running statistics."""
    parameters, statistics = {}, {}
    channels = 0
    for ours, theirs in names:
        module = network.get_submodule(theirs)
        is_norm = isinstance(module, nn.BatchNorm2d)
        # The first dense layer alone sees pixels: as many as inputs per channel of the last convolution.
        spatial = module.in_features // channels if isinstance(module, nn.Linear) else 1
        channels = module.out_features if isinstance(module, nn.Linear) else module.weight.shape[0]
        parameters[f"{ours}/{'scale' if is_norm else 'kernel'}"] = module.weight, spatial
        if module.bias is not None:
            parameters[f"{ours}/bias"] = module.bias, 1
        if is_norm:
            statistics[f"{ours}/mean"] = module.running_mean, 1
            statistics[f"{ours}/var"] = module.running_var, 1
    assert {id(tensor) for tensor, _ in parameters.values()} == {id(p) for p in network.parameters()}
    return parameters, statistics


def fingerprints(tensors: dict) -> np.ndarray:
    """[leaves, 1 + PROJECTIONS], leaves in the order of their sorted paths."""
    return np.array(
        [
            draw.fingerprint(path, jax_layout(tensor.detach().numpy(), spatial))
            for path, (tensor, spatial) in sorted(tensors.items())
        ]
    )


def run(case: str) -> dict[str, np.ndarray]:
    """Everything of one case."""
    fields, side = (draw.CASES | draw.FORWARD_CASES)[case]
    network, names = torch_networks.build(fields | {"width": draw.WIDTH}, draw.CLASSES)
    network.double()
    parameters, statistics = leaves(network, names)
    with torch.no_grad():
        for collection, tensors in (("params", parameters), ("batch_stats", statistics)):
            for path, (tensor, spatial) in tensors.items():
                value = draw.leaf(case, collection, path, jax_layout(tensor.numpy(), spatial).shape)
                tensor.copy_(torch.from_numpy(torch_layout(value, spatial).copy()))
    images, labels = draw.batch(case, side)
    images, labels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), torch.from_numpy(labels)

    result = {"logits_eval": network.eval()(images).detach().numpy()}
    if case in draw.FORWARD_CASES:
        return result
    network.train()
    kernels = [tensor for path, (tensor, _) in parameters.items() if path.endswith("/kernel")]
    others = [tensor for path, (tensor, _) in parameters.items() if not path.endswith("/kernel")]
    optimizer = torch.optim.SGD(
        [{"params": kernels, "weight_decay": draw.SGD["weight_decay"]}, {"params": others, "weight_decay": 0.0}],
        lr=draw.SGD["learning_rate"],
        momentum=draw.SGD["momentum"],
        nesterov=True,
    )
    losses = []
    for step in range(draw.STEPS):
        optimizer.zero_grad()
        logits = network(images)
        loss = nn.functional.cross_entropy(logits, labels)
        loss.backward()
        if step == 0:
            result["logits_train"] = logits.detach().numpy()
            result["gradients"] = fingerprints({path: (t.grad, spatial) for path, (t, spatial) in parameters.items()})
        optimizer.step()
        losses.append(loss.item())
    result["losses"] = np.array(losses)
    result["params"] = fingerprints(parameters)
    result["batch_stats"] = fingerprints(statistics)
    return result


def main() -> None:
    """Write torch_goldens.npz beside this file."""
    arrays = {f"{case}/{key}": value for case in (*draw.CASES, *draw.FORWARD_CASES) for key, value in run(case).items()}
    for case in draw.CASES:
        print(case, arrays[f"{case}/losses"])
    np.savez_compressed(pathlib.Path(__file__).with_name("torch_goldens.npz"), **arrays)


if __name__ == "__main__":
    main()
