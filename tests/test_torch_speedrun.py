"""The speedrun on CIFAR-100 in PyTorch is the recipe of the config; where PyTorch is installed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn
from jaxcnn import config as configs
from jaxcnn import models

torch = pytest.importorskip("torch")

from benchmarks import torch_cifar100, torch_networks  # noqa: E402  # after torch

WIDTH, CLASSES, SIDE = 1 / 16, 20, 20


def test_the_network_gives_the_logits_of_ours():
    config = configs.from_config_dict(jaxcnn.config("speedrun_cifar100", **{"model.width": WIDTH}))
    ours = models.build(config.model, config.norm, CLASSES)
    images = np.random.default_rng(0).standard_normal((3, SIDE, SIDE, 3)).astype(np.float32)
    variables = jax.device_get(ours.init(jax.random.key(0), jnp.asarray(images)))
    module, names = torch_networks.build({"name": "airbench_residual", "width": WIDTH}, CLASSES)
    params = variables["params"]
    assert sum(p.numel() for n, p in module.named_parameters() if "norm.weight" not in n) == sum(
        leaf.size for leaf in jax.tree.leaves(params)
    )
    with torch.no_grad():
        for mine, theirs in names:
            layer = module.get_submodule(theirs)
            for key, value in params[mine].items():
                spatial = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value
                getattr(layer, "weight" if key == "kernel" else "bias").copy_(torch.from_numpy(spatial.copy()))
        found = module.eval()(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    # Sums of at most 9 * 48 products in ten layers, in float32.
    np.testing.assert_allclose(found, ours.apply(variables, jnp.asarray(images)), rtol=1e-4, atol=1e-5)


def test_its_numbers_are_those_of_the_config():
    config, recipe = jaxcnn.config("speedrun_cifar100"), torch_cifar100.Recipe()
    rate, batch = config.optim.learning_rate, config.global_batch_size
    assert (recipe.batch_size, recipe.epochs, recipe.filter_rate) == (batch, config.run.epochs, rate)
    assert recipe.bias_rate * batch / rate == pytest.approx(config.optim.bias_gradient_factor)
    assert recipe.head_rate * batch / rate == pytest.approx(config.optim.classifier_gradient_factor)
    assert recipe.decay * batch / rate == pytest.approx(config.optim.weight_decay)
    assert (recipe.filter_momentum, recipe.momentum) == (config.optim.momentum, config.optim.sgd_momentum)
    assert (recipe.warmup_epochs, recipe.smoothing) == (config.schedule.warmup, config.optim.label_smoothing)
    assert recipe.whitening_bias_epochs == config.optim.whitening_bias_epochs
    assert config.augment.crop_padding == torch_cifar100.PADDING
    small = tuple(zip(config.augment.small_until, config.augment.small_sides, strict=True))
    assert recipe.sides == (*small, (1.0, 32))


def test_images_of_an_epoch_are_crops_and_the_mirror_images_of_the_epoch_before():
    rng = np.random.default_rng(0)
    arrays = {"train_images": rng.integers(0, 256, (8, 32, 32, 3), np.uint8), "train_labels": np.arange(8)}
    images = torch_cifar100.Images(arrays, "train", torch.device("cpu"))
    source = torch_cifar100.Augmented(images, 8)
    order = torch.randperm(8)
    padded = torch.nn.functional.pad(images.images, (2,) * 4, "reflect")
    mirrored = []
    for epoch in (0, 1):
        batch, labels = source.batch(order, 0, epoch, 32)
        assert labels.tolist() == order.tolist()
        crops = [[padded[label, :, y : y + 32, x : x + 32] for y in range(5) for x in range(5)] for label in labels]
        plain = [any(torch.equal(image, crop) for crop in of) for image, of in zip(batch, crops, strict=True)]
        flipped = [any(torch.equal(image.flip(2), crop) for crop in of) for image, of in zip(batch, crops, strict=True)]
        assert [a != b for a, b in zip(plain, flipped, strict=True)] == [True] * 8
        mirrored.append(flipped)
    assert mirrored[0] == [not each for each in mirrored[1]]
    assert source.batch(order, 0, 0, 20)[0].shape == (8, 3, 20, 20)
