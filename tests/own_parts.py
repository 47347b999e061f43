"""Parts of a user, for `test_own_code`."""

import json

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxcnn import layers


class Plain(nn.Module):
    """Layers of flax.linen alone."""

    outputs: int
    features: int = 8

    @nn.compact
    def __call__(self, x, train=False):
        """Logits."""
        x = nn.Conv(self.features, (3, 3), strides=2, use_bias=False)(x)
        x = nn.relu(nn.BatchNorm(momentum=0.9)(x, not train))
        x = nn.Conv(self.features, (3, 3))(x)
        x = nn.Dropout(0.3, deterministic=not train)(nn.relu(x).mean(axis=(1, 2)))
        return nn.Dense(self.outputs)(x)


class Ours(nn.Module):
    """Layers of jaxcnn."""

    num_classes: int
    dropout: float = 0.3

    @nn.compact
    def __call__(self, images, train=False):
        """Logits."""
        x = nn.relu(layers.BatchNorm()(layers.Conv(8, 3, padding=1, use_bias=False)(images), train))
        x = layers.Dropout(self.dropout)(layers.global_average_pool(x), train)
        return layers.Classifier(self.num_classes)(x)


class Nnx(nnx.Module):
    """Layers of flax.nnx."""

    def __init__(self, outputs, *, rngs):
        self.conv = nnx.Conv(3, 8, (3, 3), use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(8, momentum=0.9, rngs=rngs)
        self.dropout = nnx.Dropout(0.3, rngs=rngs)
        self.blocks = nnx.List([nnx.Linear(8, 8, rngs=rngs) for _ in range(2)])
        self.head = nnx.Linear(8, outputs, rngs=rngs)

    def __call__(self, x):
        """Logits."""
        x = nnx.relu(self.norm(self.conv(x))).mean(axis=(1, 2))
        for block in self.blocks:
            x = nnx.relu(block(x))
        return self.head(self.dropout(x))


class Pooled(nn.Module):
    """No train argument, no options, no outputs: always four."""

    @nn.compact
    def __call__(self, x):
        """Logits."""
        return nn.Dense(4)(x.mean(axis=(1, 2)))


class Cached(nn.Module):
    """Variables that no run can keep."""

    @nn.compact
    def __call__(self, x):
        """Logits."""
        self.variable("memory", "last", jnp.zeros, (3,))
        return nn.Dense(4)(x.mean(axis=(1, 2)))


def two_numbers(outputs, targets):
    """A loss of the wrong shape."""
    return jnp.stack([outputs.sum(), targets.sum()])


def halved(image, key):
    """An augmentation that changes the size."""
    return image[::2, ::2]


def no_mapping(outputs, targets):
    """Figures of the wrong form."""
    return 3


def brightness(outputs, targets):
    """Two figures."""
    return {"top1_accuracy" if len(outputs) < 0 else "agreement": np.mean(outputs.argmax(-1) == targets.argmax(-1))}


def no_optimizer(rate):
    """It takes no learning rate."""
    return rate


def no_data():
    """A source that gives a number."""
    return 5


not_callable = 7


class Shape:
    """Callable with images, like networks of other libraries."""

    def __call__(self, x):
        """No logits."""
        return x.shape


made_object, made_nnx = Shape(), Nnx(4, rngs=nnx.Rngs(0))


class Recorder:
    """A logger that appends lines to a file beside the workdir."""

    def __init__(self, folder, config, run, fails_at=None):
        self.run = run or f"run of {config['model.name']}"
        self.path, self.fails_at = folder.parent / "recorded.jsonl", fails_at
        self._write({"start": run})

    def _write(self, what):
        with self.path.open("a") as file:
            file.write(json.dumps(what) + "\n")

    def add(self, kind, step, values):
        """Write a record."""
        if self.fails_at == step:
            raise ConnectionError("no route to the server")
        self._write({"kind": kind, "step": step, **values})

    def close(self, finished):
        """Write the end."""
        self._write({"finished": finished})
