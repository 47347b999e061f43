"""Makes mask_rcnn_goldens.npz: what torchvision computes for a tiny Mask R-CNN with random weights, in float64.

Without its masks this is Faster R-CNN, whose gradients are kept, too.

pip install torch==2.13.0 torchvision==0.29.1 numpy && python tests/goldens/make_mask_rcnn_goldens.py

The backbone is that of "mask_rcnn_cnn"; pyramid, proposals, heads and losses are those of torchvision. Where it draws
at random, the first ones are taken. Weights and image come from NumPy (`tests.mask_rcnn_case`), so they are not kept.
"""

import pathlib
import sys

import numpy as np
import torch
from torchvision.models.detection import faster_rcnn, mask_rcnn, roi_heads, rpn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
from tests import mask_rcnn_case as case

C, H, K = case.CHANNELS, case.HIDDEN, case.CLASSES + 1
SIDE = case.SIDE
weights = case.weights()


class Body(torch.nn.Module):
    def __init__(self):
        super().__init__()
        layers = []
        for number in range(5):
            conv = torch.nn.Conv2d(3 if number == 0 else C, C, 3, 2, 1, bias=False)
            layers.append(torch.nn.Sequential(conv, torch.nn.BatchNorm2d(C), torch.nn.SiLU()))
        self.layers = torch.nn.ModuleList(layers)
        self.fpn = FeaturePyramidNetwork([C] * 4, C, LastLevelMaxPool())

    def forward(self, x):
        maps = {}
        for number, layer in enumerate(self.layers):
            x = layer(x)
            if number:
                maps[str(number - 1)] = x
        return self.fpn(maps)


body = Body()
generator = AnchorGenerator(tuple((int(size),) for size in case.SIZES), ((0.5, 1.0, 2.0),) * 5)
first = rpn.RegionProposalNetwork(
    generator,
    rpn.RPNHead(C, 3),
    *(0.7, 0.3, case.JUDGED, 0.5),
    {"training": case.BEFORE, "testing": case.BEFORE},
    {"training": case.PROPOSALS, "testing": case.PROPOSALS},
    0.7,
)
levels = ["0", "1", "2", "3"]
second = roi_heads.RoIHeads(
    MultiScaleRoIAlign(levels, 7, 2),
    faster_rcnn.TwoMLPHead(C * 49, H),
    faster_rcnn.FastRCNNPredictor(H, K),
    *(0.5, 0.5, case.TAKEN, 0.25, None, 0.05, 0.5, case.FOUND),
    MultiScaleRoIAlign(levels, 14, 2),
    mask_rcnn.MaskRCNNHeads(C, (C, C, C, C), 1),
    mask_rcnn.MaskRCNNPredictor(C, C, K),
)
model = torch.nn.ModuleDict({"body": body, "first": first, "second": second}).double()
fpn, box, mask = body.fpn, second.box_head, second.mask_predictor
modules = {
    **{f"conv{n + 1}/conv": body.layers[n][0] for n in range(5)},
    **{f"conv{n + 1}/bn": body.layers[n][1] for n in range(5)},
    **{f"pyramid_in{n}": fpn.inner_blocks[n][0] for n in range(4)},
    **{f"pyramid_out{n}": fpn.layer_blocks[n][0] for n in range(4)},
    "anchor_conv": first.head.conv[0][0],
    "anchor_logits": first.head.cls_logits,
    "anchor_boxes": first.head.bbox_pred,
    "box_dense1": box.fc6,
    "box_dense2": box.fc7,
    "box_logits": second.box_predictor.cls_score,
    "box_boxes": second.box_predictor.bbox_pred,
    **{f"mask_conv{n + 1}": second.mask_head[n][0] for n in range(4)},
    "mask_up": mask.conv5_mask,
    "mask_logits": mask.mask_fcn_logits,
}


def theirs(path, array):
    """A parameter of ours in the layout of PyTorch."""
    module, _, kind = path.rpartition("/")
    if kind != "kernel":
        return array
    if module == "mask_up":
        return array.transpose(2, 3, 0, 1)
    if module == "box_dense1":
        return array.reshape(H, 7, 7, C).transpose(0, 3, 1, 2).reshape(H, -1)
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array


def parameter(path):
    module, _, kind = path.rpartition("/")
    return getattr(modules[module], "bias" if kind == "bias" else "weight")


with torch.no_grad():
    for path, array in weights.items():
        parameter(path).copy_(torch.tensor(np.ascontiguousarray(theirs(path, array))))

image = torch.tensor(case.image()).permute(2, 0, 1)[None]
images = ImageList(image, [(SIDE, SIDE)])
true_boxes, labels, masks = case.objects()
target = {
    "boxes": torch.tensor(true_boxes).double(),
    "labels": torch.tensor(labels) + 1,
    "masks": torch.tensor(masks),
}
arrays = {}
model.eval()
with torch.no_grad():
    maps = body(image)
    proposals, _ = first(images, maps)
    (found,), _ = second(maps, proposals, [(SIDE, SIDE)])
    arrays["proposals"] = proposals[0].numpy()
    arrays |= {name: found[name].numpy() for name in ("boxes", "scores", "labels")}
    arrays["masks"] = found["masks"][:3, 0].numpy()

torch.randperm = lambda number, **_: torch.arange(number)
model.train()
maps = body(image)
proposals, of_first = first(images, maps, [target])
_, of_second = second(maps, proposals, [(SIDE, SIDE)], [target])
losses = {
    "anchor_class": of_first["loss_objectness"],
    "anchor_box": of_first["loss_rpn_box_reg"],
    "class": of_second["loss_classifier"],
    "box": of_second["loss_box_reg"],
    "mask": of_second["loss_mask"],
}
arrays |= {f"loss_{name}": loss.detach().numpy() for name, loss in losses.items()}
directions = case.directions()
parameters = [parameter(path) for path in directions]
of_boxes = sum(loss for name, loss in losses.items() if name != "mask")  # the loss of Faster R-CNN
for before, loss in (("", of_boxes + losses["mask"]), ("boxes_", of_boxes)):
    gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    for (path, direction), gradient in zip(directions.items(), gradients, strict=True):
        if gradient is None:  # of the head for masks, without its loss
            continue
        along = torch.tensor(np.ascontiguousarray(theirs(path, direction)))
        arrays[f"{before}along_{path}"] = (gradient * along).sum().numpy()
        arrays[f"{before}length_{path}"] = gradient.norm().numpy()

# Boxes reach nowhere outside: torchvision's code in Python, which it takes where its C++ is not built, differs there.
features = [torch.tensor(each).permute(2, 0, 1)[None].requires_grad_() for each in case.pyramid()]
pool = MultiScaleRoIAlign(levels, 7, 2)
made = pool(dict(zip(levels, features, strict=True)), [torch.tensor(case.regions())], [(case.WIDE, case.WIDE)])
arrays["aligned"] = made.detach().numpy()
(made**2).sum().backward()
along = np.random.default_rng(8)
for level, each in enumerate(features):
    gradient = each.grad[0].permute(1, 2, 0).numpy()
    arrays[f"aligned_length{level}"] = np.linalg.norm(gradient)
    arrays[f"aligned_along{level}"] = (gradient * along.normal(size=gradient.shape)).sum()
print({name: float(loss) for name, loss in losses.items()}, len(arrays["proposals"]), arrays["scores"][:5])
np.savez_compressed(pathlib.Path(__file__).parent / "mask_rcnn_goldens.npz", **arrays)
