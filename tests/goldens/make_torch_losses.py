"""Makes torch_losses.npz: what PyTorch computes for the losses of `jaxcnn.tasks`, in float64.

pip install torch==2.13.0 numpy && python tests/goldens/make_torch_losses.py
"""

import pathlib

import numpy as np
import torch
import torch.nn.functional as F

generator = np.random.default_rng(0)
EXAMPLES, CLASSES = 24, 7
logits = generator.normal(size=(EXAMPLES, CLASSES)) * 3
teacher = generator.normal(size=(EXAMPLES, CLASSES)) * 3
label = generator.integers(CLASSES, size=EXAMPLES)
hot = (generator.random((EXAMPLES, CLASSES)) < 0.3).astype(np.float64)
weight = generator.uniform(0.2, 3.0, CLASSES)

x = torch.tensor(logits, requires_grad=True)
t, y, h, w = torch.tensor(teacher), torch.tensor(label), torch.tensor(hot), torch.tensor(weight)
probability = torch.sigmoid(x)
right = h * probability + (1 - h) * (1 - probability)
own = torch.softmax(x, -1).gather(1, y[:, None])[:, 0]
losses = {
    "weighted": F.cross_entropy(x, y, weight=w, label_smoothing=0.1, reduction="none"),
    "focal": (1 - own) ** 2 * F.cross_entropy(x, y, reduction="none"),
    "binary": F.binary_cross_entropy_with_logits(x, h, pos_weight=w, reduction="none").mean(-1),
    "binary_focal": ((1 - right) ** 1.5 * F.binary_cross_entropy_with_logits(x, h, reduction="none")).mean(-1),
    "distilled": F.kl_div(F.log_softmax(x / 4, -1), F.softmax(t / 4, -1), reduction="none").sum(-1) * 16,
}
arrays = {"logits": logits, "teacher": teacher, "label": label, "hot": hot, "weight": weight}
for name, loss in losses.items():
    arrays[name] = loss.detach().numpy()
    arrays[f"{name}_gradient"] = torch.autograd.grad(loss.sum(), x, retain_graph=True)[0].numpy()
np.savez_compressed(pathlib.Path(__file__).parent / "torch_losses.npz", **arrays)
