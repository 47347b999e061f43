"""Data of users: an open name of a function that returns arrays or a `Source`."""

from importlib import util

import jaxcnn.config as config
from jaxcnn.config import UserError, open_names
from jaxcnn.data import memory
from jaxcnn.data.examples import Source
from jaxcnn.machine import plugins

KIND = "sources"  # the group of the entry points


def open_own(data: config.Data, task: config.Task) -> Source | None:
    """The source that `config.data.source` names; None if it is not an open name.

    It is "package.module:function", with options if wanted, or an entry point: "name", "name(option=value)" or
    "name:text", whose function gets the text. A function returns what `jaxcnn.train` takes as `data`
    (`jaxcnn.data.memory.check`), or a `Source`.

    Raises:
      UserError: the name leads to nothing, or the function returns something else.
    """
    source = data.source
    try:
        target, _ = open_names.parse(source)
    except ValueError:
        return None
    kind, _, text = target.partition(":")
    if open_names.entry_point(KIND, kind) is not None:
        function = plugins.load(KIND, source if not text else kind).function
        given = function(text) if text else function()
    elif open_names.is_attribute(target) and (kind == plugins.GIVEN or util.find_spec(kind.partition(".")[0])):
        given = plugins.load(KIND, source).function()
    else:
        return None
    if isinstance(given, Source):
        return given
    try:
        return memory.as_source(memory.check(given), source, data, task)
    except UserError as error:
        raise UserError(f"config.data.source={source!r}: {error}") from None
