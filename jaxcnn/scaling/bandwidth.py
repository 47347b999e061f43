"""The time of a collective: an alpha-beta model over the links of a cluster, with constants in one cited table.

Every step of a collective costs a latency (alpha), and every byte a time on a link (beta). For GPUs, this is the model
by which NCCL itself chooses between rings and trees; for TPUs, rings along the axes of a torus; for CPUs, one ring over
Ethernet. `docs/scaling.md` explains the models and their limits.
"""

import dataclasses
import math
from collections.abc import Sequence

MICROSECOND = 1e-6


@dataclasses.dataclass(frozen=True)
class Links:
    """The links between the devices of a GPU cluster.

    Attributes:
      node: number of devices that share the inner links.
      inner: bytes/s of one device into the links of its node, in one direction.
      outer: bytes/s of one device's share of the network between nodes, in one direction.
      attained: share of both that long collectives reach.
      source: source of the figures.
    """

    node: int
    inner: float
    outer: float
    attained: float
    source: str

    def seconds(self, kind: str, nbytes: float, size: int, nodes: int) -> float:
        """Time of one collective; see `collective_seconds`."""
        if size < 2:
            return 0.0
        per_node = size / nodes
        # A ring leaves each node through all adapters of its members at once.
        bandwidth = self.inner if nodes == 1 else min(self.inner, self.outer * per_node)
        if kind not in _RING_STEPS:  # pairs: every device sends on its own
            lone = (self.inner if nodes == 1 else min(self.inner, self.outer)) * self.attained
            ring = _NCCL["ring", "simple"]
            return ring.base + (ring.inner if nodes == 1 else ring.outer) + _moved(kind, nbytes, size) / lone
        ways = [way for (shape, _), way in _NCCL.items() if shape == "ring" or kind == "all-reduce"]
        return min(way.seconds(kind, nbytes, size, nodes, bandwidth * self.attained) for way in ways)


@dataclasses.dataclass(frozen=True)
class Torus:
    """Devices in a grid whose rows and columns are rings if they are long enough.

    Attributes:
      link: bytes/s of one link in one direction; each device has two links along every axis.
      wraps: an axis of at least this many devices is closed to a ring.
      hop: seconds from one device to the next.
      source: source of the figures.
    """

    link: float
    wraps: int
    hop: float
    source: str

    def seconds(self, kind: str, nbytes: float, shape: Sequence[int]) -> float:
        """Time of one collective over all devices of a grid of this shape; see `collective_seconds`."""
        axes = [side for side in shape if side > 1]
        if not axes:
            return 0.0
        # Data is split over the axes, so that all links work at once; an open axis sends in one direction only.
        bandwidth = sum(self.link * (2 if side >= self.wraps else 1) for side in axes)
        hops = sum(side / 2 if side >= self.wraps else side - 1 for side in axes)
        passes = _RING_STEPS.get(kind, 1)
        own = 1 / math.prod(axes) if kind in _RING_STEPS else 0.0  # the share that a device has already
        return passes * (hops * self.hop + (1 - own) * nbytes / bandwidth)


@dataclasses.dataclass(frozen=True)
class Ethernet:
    """Hosts at one switch with one device each; collectives are rings over TCP, as in Gloo.

    Attributes:
      link: bytes/s of a host's adapter in one direction.
      attained: share of it that long transfers reach.
      step: latency in seconds of a transfer to the next host of the ring, in addition to the time of its bytes.
      source: source of the figures.
    """

    link: float
    attained: float
    step: float
    source: str

    def seconds(self, kind: str, nbytes: float, size: int) -> float:
        """Time of one collective; see `collective_seconds`."""
        if size < 2:
            return 0.0
        bandwidth = self.link * self.attained
        if kind not in _RING_STEPS:
            return self.step + _moved(kind, nbytes, size) / bandwidth
        return _RING_STEPS[kind] * (size - 1) * (self.step + nbytes / size / bandwidth)


@dataclasses.dataclass(frozen=True)
class _Way:
    """An NCCL algorithm for a collective: its latencies in seconds, and the share of the bandwidth it can use."""

    shape: str
    base: float
    inner: float
    outer: float
    share: float

    def seconds(self, kind: str, nbytes: float, size: int, nodes: int, bandwidth: float) -> float:
        if self.shape == "tree":
            latency = 2 * ((size / nodes - 1) * self.inner + math.log2(nodes) * self.outer)
            return self.base + latency + 2 * nbytes / (bandwidth * self.share)
        passes = _RING_STEPS[kind]
        between = passes * (nodes - 1)
        latency = (passes * (size - 1) - between) * self.inner + between * self.outer
        return self.base + latency + passes * (size - 1) / size * nbytes / (bandwidth * self.share)


def _way(shape: str, base: float, inner: float, outer: float, share: float) -> _Way:
    return _Way(shape, base * MICROSECOND, inner * MICROSECOND, outer * MICROSECOND, share)


# Passes of a ring over all its members.
_RING_STEPS = {"all-reduce": 2, "all-gather": 1, "reduce-scatter": 1}

# Microseconds at the start, per step within a node (NVLink), and per step between nodes; and the share of bandwidth.
# From NCCL's own model, github.com/NVIDIA/nccl, src/graph/tuning.cc at 01afd20a77b5 (baseLat, hwLat; "LL" trades
# bandwidth for latency, and its steps within a node take 1.8 times as long if there are several nodes).
_NCCL = {
    ("ring", "simple"): _way("ring", 8.4, 3.4, 9.6, 1.0),
    ("ring", "LL"): _way("ring", 3.6, 1.8 * 0.47, 2.7, 1 / 4),
    ("tree", "simple"): _way("tree", 0.0, 28.0, 50.0, 0.9),
    ("tree", "LL"): _way("tree", 4.4, 1.8 * 0.52, 5.0, 0.9 / 3.8),
}

_DGX = "NVIDIA's data sheets of the GPU (NVLink, half of the bidirectional figure) and of DGX"
# Keyed by the name in `--simulate`. One InfiniBand adapter per GPU.
LINKS: dict[str, Links] = {
    "h100": Links(
        8, 450e9, 50e9, 370 / 450, f"{_DGX} H100 (8 x 400 Gb/s); attained: jax-ml.github.io/scaling-book/gpus"
    ),
    "h200": Links(8, 450e9, 50e9, 370 / 450, f"{_DGX} H200 (8 x 400 Gb/s); attained: as measured on H100"),
    "a100": Links(8, 300e9, 25e9, 235 / 300, f"{_DGX} A100 (8 x 200 Gb/s); attained: the bound in NCCL's tuning.cc"),
}
TORI: dict[str, Torus] = {
    "v5e": Torus(
        45e9,
        16,
        1 * MICROSECOND,
        "jax-ml.github.io/scaling-book/tpus (45 GB/s one way per link, an axis of 16 is closed to a ring, about 1 us "
        "per hop); docs.cloud.google.com/tpu/docs/v5e states 400 GB/s per chip, over 4 links and both directions",
    ),
}
ETHERNET = Ethernet(
    25e9 / 8,
    0.9,
    50 * MICROSECOND,
    "assumed, not measured: one 25 Gb/s Ethernet adapter for each host, nine tenths of it reached, 50 us for each step "
    "of a ring over TCP",
)


def collective_seconds(
    links: Links | Torus | Ethernet, kind: str, nbytes: float, size: int, nodes: int = 1, shape: Sequence[int] = ()
) -> float:
    """Predicted time of one collective.

    Args:
      links: the links between the devices.
      kind: "all-reduce", "all-gather", "reduce-scatter", "all-to-all" or "collective-permute".
      nbytes: bytes of the whole array: the input of each device to an all-reduce, reduce-scatter, all-to-all or
        permutation, or its output from an all-gather.
      size: devices in a group.
      nodes: number of nodes over which a group extends (GPUs).
      shape: shape of the grid (TPUs); a group that does not fill it is treated as one axis.
    """
    if isinstance(links, Ethernet):
        return links.seconds(kind, nbytes, size)
    if isinstance(links, Links):
        return links.seconds(kind, nbytes, size, nodes)
    grid = shape if math.prod(shape) == size else (size,)
    return links.seconds(kind, _moved(kind, nbytes, size) if kind not in _RING_STEPS else nbytes, grid)


def _moved(kind: str, nbytes: float, size: int) -> float:
    """Bytes that leave a device if it sends all of them on its own."""
    return nbytes * (size - 1) / size if kind == "all-to-all" else nbytes
