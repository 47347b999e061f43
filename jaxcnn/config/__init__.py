"""The configuration of a run: frozen dataclasses, created and checked once, at the start.

A file in `configs/` returns an `ml_collections.ConfigDict` whose tree mirrors `Config`. `from_config_dict` turns
it into these dataclasses and refuses values out of range and impossible combinations. After that, no code looks up keys
in a dictionary, and a mistake cannot appear in the middle of a run. Mistakes raise `ConfigError`, one line each.

`jaxcnn.config("resnet50", epochs=5)` is a call of this package: `jaxcnn.api.configs.config`.
"""

import sys

import jaxcnn
from jaxcnn.config.errors import ConfigError, UserError
from jaxcnn.config.fields import (
    Augment,
    Checkpoint,
    Config,
    Data,
    Hosts,
    Init,
    Model,
    Norm,
    Optim,
    Parallel,
    Prune,
    Run,
    Schedule,
    Task,
)
from jaxcnn.config.rules import check
from jaxcnn.config.tree import choices, default, flatten, from_config_dict, nested, open_keys, to_dict, unknown_variant

__all__ = [
    "Augment",
    "Checkpoint",
    "Config",
    "ConfigError",
    "Data",
    "Hosts",
    "Init",
    "Model",
    "Norm",
    "Optim",
    "Parallel",
    "Prune",
    "Run",
    "Schedule",
    "Task",
    "UserError",
    "check",
    "choices",
    "default",
    "flatten",
    "from_config_dict",
    "nested",
    "open_keys",
    "to_dict",
    "unknown_variant",
]

sys.modules[__name__].__class__ = jaxcnn.CallablePackage
