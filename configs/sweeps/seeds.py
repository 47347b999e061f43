"""Seeds of any config, which `--population` trains together: `:<number>,<config>`, with the config's own variant.

    python -m jaxcnn.sweep --config=configs/sweeps/seeds.py:3,alexnet_cifar10:strong --workdir=runs/seeds --population=3

A network that does not fill a GPU, such as AlexNet on CIFAR, takes little more time for several seeds than for one.
`benchmarks.cells` uses this. Without a variant: three seeds of the quick start.
"""

import jaxcnn
from jaxcnn.config import ConfigError
from jaxcnn.study import spec

USUAL = "3,quickstart"


def get_config(variant: str = USUAL):
    return jaxcnn.config(_parts(variant)[1])


def get_sweep(variant: str = USUAL):
    return spec.sweep(spec.values("seed", list(range(_parts(variant)[0]))))


def _parts(variant: str) -> tuple[int, str]:
    number, _, recipe = variant.partition(",")
    if not (number.isdecimal() and int(number) and recipe):
        raise ConfigError(f"configs/sweeps/seeds.py:{variant:.200} must be :<number of seeds>,<config>")
    return int(number), recipe
