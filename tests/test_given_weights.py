"""`python -m benchmarks.given_weights`: files by their names, every array in its place, and the table."""

import flax.traverse_util as traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import known_weights
from jaxcnn import config, models
from jaxcnn.config import UserError
from jaxcnn.weights import layout

KNOWN = known_weights.KNOWN["resnet20"]


@pytest.fixture
def file(tmp_path):
    """A file of the names and shapes that akamaster's ResNet-20 has, in a folder of its own."""
    model = config.Model(name="resnet20")
    module = models.build(model, config.Norm(), 10)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    leaves = layout.leaves(
        "torchvision", model, {key: leaf.shape for key, leaf in traverse_util.flatten_dict(shapes, sep="/").items()}
    )
    arrays = {leaf.theirs[0]: layout.to_theirs("torchvision", leaf, np.zeros(leaf.shape, "f4")) for leaf in leaves}
    path = tmp_path / "weights" / "resnet20-12fca82f.npz"
    path.parent.mkdir()
    np.savez(path, **arrays)
    return path


def test_a_file_is_found_by_its_name_and_its_parameters_are_counted(file, tmp_path):
    assert known_weights.find(tmp_path, KNOWN) == file
    assert known_weights.find(tmp_path, known_weights.KNOWN["resnet56"]) is None
    found = known_weights.measured("resnet20", KNOWN, file, "")
    assert found == {"parameters": 269_722}
    record = {"date": "2026-01-31", "command": "python", "peers": {"jaxcnn": {"backend": "cpu", "commit": "0123"}}}
    page = known_weights.markdown(record | {"networks": {"resnet20": found | {"accuracy": 0.9173, "images": 10_000}}})
    assert "269,722 | 269,722 | 91.73 % of 10,000 test images of CIFAR-10 | 91.73 % |" in page
    assert "commit 0123" in page and "photos" not in page


def test_an_array_too_many_is_an_error(file):
    with np.load(file) as old:
        np.savez(file, **old, other=np.zeros(3, "f4"))
    with pytest.raises(UserError, match="other"):
        known_weights.measured("resnet20", KNOWN, file, "")
