"""The names of the classes of a set, or of other outputs."""

import dataclasses
from collections import Counter

import jaxcnn.config as config
from jaxcnn.data.examples import Source
from jaxcnn.tasks import by_name, weights
from jaxcnn.text import counted, distinct, listed


def given(source: Source, task: config.Task) -> tuple[Source, list[str]]:
    """The source with the names that its outputs have in a task, no two alike, and notes on what was done.

    Raises:
      UserError: the labels are not those of such a task, or `task.weights_by_name` has another name.
    """
    known = by_name.names(task, source.class_names, source.labels, source.title)
    names, notes = distinct(known), list[str]()
    if not source.class_names and any(each.dtype.names for each in source.labels):
        notes.append(
            f"{source.title} has no class_names; by the labels of its boxes, from 0 to {len(known) - 1}, it has "
            f"{counted(len(known), 'class', 'classes')}"
        )
    if names != known:
        twice = [name for name, count in Counter(known).items() if count > 1]
        numbered = [name for name, was in zip(names, known, strict=True) if was == twice[0]]
        notes.append(
            f"several classes of {source.title} share the name {listed(twice)}; they are numbered, as in "
            f"{listed(numbered)}"
        )
    weights.check_names(task, names)
    return dataclasses.replace(source, class_names=names), notes
