"""The data that a compiled program moves between devices, read from the text of its optimised HLO."""

import dataclasses
import math
import re

import numpy as np

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
BITS = {"pred": 8, "s4": 4, "u4": 4, "bf16": 16, "c64": 64, "c128": 128}  # other types have the number in their name

_ARRAY = re.compile(r"\b([a-z]+\d*(?:e\d+m\d+\w*)?)\[([\d,]*)\]")
_OPERATION = re.compile(
    rf"^\s*(?:ROOT )?%?[\w.\-]+ = (?P<type>.*?) (?P<kind>{'|'.join(KINDS)})(?P<start>-start)?\((?P<rest>.*)$"
)
_LISTED = re.compile(r"replica_groups=\{((?:\{[\d,]*\},?)*)\}")
_IOTA = re.compile(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_MESH = re.compile(r"replica_groups=mesh\[(.*?)\](?:, device_ids=\(([\d,\[\] ]*)\))? \{(.*?)\}")
_PAIRS = re.compile(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}")
_AXIS = re.compile(r"'?([^',:]+)'?(?::\((\d+)\)(\d+))?")
_OP_NAME = re.compile(r'op_name="([^"]*)"')


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective operation, such as an all-reduce among devices.

    Attributes:
      kind: one of `KINDS`; an asynchronous operation, with a start and an end, counts once.
      arrays: number of arrays that it moves together.
      bytes: bytes of the whole arrays, as one device has them before a reduction or after a gather: operands of
        all-reduce and reduce-scatter, results of all others.
      dtypes: the distinct dtypes of the arrays, as HLO names them ("f32", "bf16").
      group_size: number of devices in each group; 0: all.
      replica_groups: the devices of each group, by number; for collective-permute, the pairs (source, target). Empty:
        one group of all devices.
      op_name: the JAX operation that it came from, such as "jit(train_step)/shard_map/psum"; "" if unknown.
    """

    kind: str
    arrays: int
    bytes: int
    dtypes: tuple[str, ...]
    group_size: int
    replica_groups: tuple[tuple[int, ...], ...]
    op_name: str


def collectives(text: str) -> list[Collective]:
    """The collectives in the text of a compiled program (`jax.stages.Compiled.as_text()`), in its order.

    A collective in the body of a loop is listed once, however often it runs; collectives in groups of one device are
    omitted, as they move nothing.
    """
    found = [_read(match) for line in text.splitlines() if (match := _OPERATION.match(line))]
    return [collective for collective in found if collective.group_size != 1]


def total_bytes(found: list[Collective], kind: str | None = None) -> int:
    """Bytes of all collectives of a kind, or of all kinds."""
    return sum(collective.bytes for collective in found if kind in (None, collective.kind))


def _read(match: re.Match[str]) -> Collective:
    kind, rest = match["kind"], match["rest"]
    groups = _groups(rest)
    arrays = _results(match["type"], kind, bool(match["start"]))
    group_size = len(groups[0]) if groups else 0
    size = sum(_bytes(dtype, shape) for dtype, shape in arrays)
    if kind == "reduce-scatter":
        size *= max(group_size, 1)
    name = _OP_NAME.search(rest)
    dtypes = tuple(sorted({dtype for dtype, _ in arrays}))
    return Collective(kind, len(arrays), size, dtypes, group_size, groups, name[1] if name else "")


def _results(type_text: str, kind: str, started: bool) -> list[tuple[str, str]]:
    """The (dtype, shape) of each result of a collective."""
    arrays = _ARRAY.findall(type_text)
    if started and kind != "all-reduce":
        # The type of a start like this has the operands, then the results, and perhaps scalars of its own.
        arrays = [array for array in arrays if array[0] != "u32" or array[1]]
        arrays = arrays[len(arrays) // 2 :]
    if kind == "all-to-all" and len(arrays) > 1:
        return arrays[:1] * len(arrays)
    return arrays


def _bytes(dtype: str, shape: str) -> int:
    bits = BITS.get(dtype) or int(re.findall(r"\d+", dtype)[0])
    return math.prod(map(int, shape.split(",")) if shape else ()) * bits // 8


def _groups(rest: str) -> tuple[tuple[int, ...], ...]:
    if match := _PAIRS.search(rest):
        return _listed(match[1])
    if match := _LISTED.search(rest):
        return _listed(match[1])
    if match := _IOTA.search(rest):
        shape, source = ([int(n) for n in match[i].split(",")] for i in (1, 2))
        order = [int(n) for n in match[3].split(",")] if match[3] else range(len(source))
        table = np.arange(math.prod(source)).reshape(source).transpose(order).reshape(shape)
        return tuple(tuple(row) for row in table.tolist())
    if match := _MESH.search(rest):
        return _mesh_groups(match[1], match[2], match[3])
    return ()


def _mesh_groups(mesh: str, device_ids: str | None, axes: str) -> tuple[tuple[int, ...], ...]:
    """The groups of devices along `axes`, such as "'b','c':(2)4", of a mesh such as "'a'=2,'b'=8,'c'=16".

    "(2)4" means a part of an axis: the axis is split into axes of 2, of 4 and of the rest; the second one is meant.
    """
    whole = {name: int(size) for name, size in re.findall(r"'?([^',=]+)'?=(\d+)", mesh)}
    wanted = {name: (int(before or 1), int(size or whole[name])) for name, before, size in _AXIS.findall(axes)}
    shape: list[int] = []
    across: list[int] = []
    for name, size in whole.items():
        before, length = wanted.get(name, (1, 1))
        if name in wanted:
            across.append(len(shape) + 1)
        shape += [before, length, size // (before * length)]
    ids = [int(n) for n in re.findall(r"\d+", device_ids)] if device_ids else range(math.prod(shape))
    table = np.moveaxis(np.reshape(ids, shape), across, range(-len(across), 0))
    return tuple(tuple(row) for row in table.reshape(-1, math.prod(shape[i] for i in across)).tolist())


def _listed(text: str) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(int(n) for n in group.split(",")) for group in re.findall(r"\{([\d,]+)\}", text))
