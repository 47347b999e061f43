"""Run a speedrun script of PyTorch a given number of times: `python -m benchmarks.torch_script <script> <runs> <npz>`.

Scripts of the form of airbench94_muon.py (github.com/KellerJordan/cifar10-airbench) train in `range(200)` and load
`cifar10/train.pt` and `cifar10/test.pt`. In the current folder, a copy with another number of runs is written, and the
two files from the arrays of an .npz; then the copy takes the place of this process. Imports nothing of JAX.
"""

import os
import pathlib
import re
import sys

RUNS = re.compile(r"\brange\(200\)")
DATA = "cifar10"


def main(script: str, runs: str, npz: str = "") -> None:
    """Prepare the current folder and become the script. Exits with 2 and one line if that is not possible."""
    source, found = RUNS.subn(f"range({int(runs)})", pathlib.Path(script).read_text(encoding="utf-8"))
    if found != 1:
        sys.exit(f"{script} has range(200), its number of runs, {found} times, not once")
    if npz:
        write_sets(pathlib.Path(npz), pathlib.Path(DATA))
    copy = pathlib.Path(pathlib.Path(script).name)
    copy.write_text(source, encoding="utf-8")
    os.execv(sys.executable, [sys.executable, "-u", str(copy)])


def write_sets(npz: pathlib.Path, folder: pathlib.Path) -> None:
    """Write the images (uint8, NHWC), labels and class names of both splits in the script's own form, if not there."""
    import numpy as np
    import torch

    folder.mkdir(exist_ok=True)
    with np.load(npz) as arrays:
        names = [str(name) for name in arrays["names"]] if "names" in arrays else []
        for split in ("train", "test"):
            path = folder / f"{split}.pt"
            if not path.exists():
                images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
                part = path.with_suffix(".part")
                tensors = {"images": torch.tensor(images), "labels": torch.tensor(labels.astype("int64"))}
                torch.save(tensors | {"classes": names}, part)
                part.replace(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
