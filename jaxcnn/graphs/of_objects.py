"""The operators of networks that find objects: rows that are chosen, boxes that are suppressed, regions of maps.

Suppression and regions are loops and lookups of many steps in JAX. A traced program calls them by name
(`suppression.standing`, `roi_align.read_regions`), and ONNX has an operator for each.
"""

from typing import Any

import numpy as np

from jaxcnn.config import UserError
from jaxcnn.graphs.tensor import DTYPES, TO_CHANNELS_FIRST, Layouts, Tensor, Value
from jaxcnn.models.roi_align import SAMPLES

CALLS = ("standing", "read_regions")  # names of compiled functions


class Objects(Layouts):
    """Adds these operators, each by the name of its primitive or of its call."""

    def _top_k(self, shape: Any, params: Any, x: Tensor) -> list[Tensor]:
        x = self.channels_last(x)
        if params["axis"] != len(x.shape) - 1:
            raise UserError("this network chooses the largest values across images or places; use --format=stablehlo")
        place = self.graph.add("TopK", x.name, self.whole_numbers([params["k"]]), axis=-1)
        values = self.graph.add("GatherElements", x.name, place, axis=len(x.shape) - 1)
        return [Tensor(values, shape), Tensor(self.graph.add("Cast", place, to=DTYPES["int32"]), shape)]

    def _rem(self, shape: Any, params: Any, x: Tensor, y: Value) -> Tensor:
        names, first = self._aligned([x, y])
        return Tensor(self.graph.add("Mod", *names, fmod=1), shape, first)  # 1: with the sign of x, as in JAX

    def _reduce_and(self, shape: Any, params: Any, x: Tensor) -> Tensor:
        whole = self.graph.add("Cast", self.channels_last(x).name, to=DTYPES["int32"])
        least = self.graph.add("ReduceMin", whole, self.whole_numbers(list(params["axes"])), keepdims=0)
        return Tensor(self.graph.add("Cast", least, to=DTYPES["bool"]), shape)

    def _gather(self, shape: Any, params: Any, x: Value, place: Value) -> Tensor:
        """Rows along one axis, chosen for each image by itself, or of one constant table. Places are within it."""
        numbers, own = params["dimension_numbers"], isinstance(x, Tensor)
        axis, *others = map(int, numbers.start_index_map)
        wanted = tuple(1 if i == axis or (own and i == 0) else size for i, size in enumerate(x.shape))
        of_images = (tuple(numbers.operand_batching_dims), tuple(numbers.start_indices_batching_dims))
        if (
            others
            or not isinstance(place, Tensor)
            or tuple(map(int, numbers.collapsed_slice_dims)) != (axis,)
            or tuple(params["slice_sizes"]) != wanted
            or of_images != (((0,), (0,)) if own else ((), ()))
        ):
            raise UserError(
                "this network looks values up in a way that cannot be written as ONNX here; use --format=stablehlo"
            )
        found = self._rows(x, axis, place) if isinstance(x, Tensor) else self._rows_of_table(x, axis, place)
        # The dimensions of the places come first in it, then the rest; JAX has the rest at `offset_dims`.
        rest = [int(i) for i in numbers.offset_dims]
        there = [*(i for i in range(len(shape)) if i not in rest), *rest]
        if there == list(TO_CHANNELS_FIRST):
            return Tensor(found, shape, True)
        return Tensor(self._permuted(found, [there.index(i) for i in range(len(shape))]), shape)

    def _rows(self, x: Tensor, axis: int, place: Tensor) -> str:
        ahead = x.channels_first and axis == 3
        if not ahead:
            x = self.channels_last(x)
        order = [0, axis, *(i for i in range(1, len(x.shape)) if i != axis)]
        where = self.graph.add("Cast", self.channels_last(place).name, to=DTYPES["int64"])
        return self.graph.add("GatherND", x.name if ahead else self._permuted(x.name, order), where, batch_dims=1)

    def _rows_of_table(self, x: Any, axis: int, place: Tensor) -> str:
        where = self.graph.add(
            "Reshape", self.channels_last(place).name, self.whole_numbers([0] * (len(place.shape) - 1))
        )
        return self.graph.add("Gather", self.graph.constant(np.moveaxis(np.asarray(x), axis, 0)), where, axis=0)

    def _permuted(self, name: str, order: list[int]) -> str:
        return name if order == sorted(order) else self.graph.add("Transpose", name, perm=order)

    def _standing(self, shape: Any, params: Any, *given: Value) -> Tensor:
        """`jaxcnn.tasks.suppression.standing` of each image of a batch."""
        boxes, scores, most_overlap, least = given
        known = not isinstance(most_overlap, Tensor) and not isinstance(least, Tensor)
        if not isinstance(boxes, Tensor) or not isinstance(scores, Tensor) or len(boxes.shape) != 3 or not known:
            raise UserError("this network suppresses boxes of several images together; use --format=stablehlo")
        count = boxes.shape[1]
        of_one_class = self.graph.add("Reshape", scores.name, self.whole_numbers([0, 1, count]))
        limits = (
            self.whole_numbers(count),
            self.graph.constant(most_overlap, np.float32),
            # The operator wants scores above this one.
            self.graph.constant(np.nextafter(np.float32(np.asarray(least)), np.float32(0)), np.float32),
        )
        stand = self.graph.add("NonMaxSuppression", boxes.name, of_one_class, *limits)  # image, class, place
        where = self.graph.add("Gather", stand, self.whole_numbers([0, 2]), axis=1)
        none, all_ = (self.graph.add(op, scores.name, scores.name) for op in ("Less", "Equal"))
        return Tensor(self.graph.add("ScatterND", none, where, self.graph.add("GatherND", all_, where)), shape)

    def _read_regions(self, shape: Any, params: Any, *given: Value) -> Tensor:
        """`jaxcnn.models.roi_align.read_regions`: the boxes of each level read its map; then all are put in order."""
        *maps, boxes, level, scales = given
        if not isinstance(boxes, Tensor) or not isinstance(level, Tensor) or isinstance(scales, Tensor):
            raise UserError("this network reads regions that cannot be written as ONNX here; use --format=stablehlo")
        graph, minus = self.graph, self.whole_numbers([-1])
        rows = graph.add("Reshape", boxes.name, self.whole_numbers([-1, 4]))
        numbers = graph.add("Reshape", level.name, minus)
        image = graph.add(
            "Gather", graph.add("NonZero", graph.add("Equal", level.name, level.name)), self.whole_numbers(0), axis=0
        )
        every = graph.add("Reshape", graph.add("NonZero", graph.add("Equal", numbers, numbers)), minus)
        read, places = [], []
        for number, each in enumerate(maps):
            assert isinstance(each, Tensor)
            of_level = graph.add("Equal", numbers, graph.constant(number, np.int32))
            place = graph.add("Reshape", graph.add("NonZero", of_level), minus)
            chosen = [graph.add("Gather", name, place, axis=0) for name in (rows, image)]
            attributes = {
                "coordinate_transformation_mode": "output_half_pixel",  # the centre of the first pixel is at 0
                "mode": "avg",
                "output_height": shape[1],
                "output_width": shape[2],
                "sampling_ratio": SAMPLES,
                "spatial_scale": float(np.ravel(scales)[number]),
            }
            read.append(graph.add("RoiAlign", self.channels_first(each).name, *chosen, **attributes))
            places.append(place)
        order = graph.add("Concat", *places, axis=0)
        back = graph.add("ScatterElements", order, order, every, axis=0)
        return Tensor(graph.add("Gather", graph.add("Concat", *read, axis=0), back, axis=0), shape, True)
