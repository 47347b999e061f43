"""Measures on a GPU, in one command and in the order of their value: `python -m benchmarks.campaign`.

    python -m benchmarks.campaign --minutes=25 --out=runs/campaign --cifar10=cifar10.npz --cifar100=cifar100.npz \
        --torch_scripts=<folder with airbench94_muon.py>

The parts and their order are in `benchmarks/campaign_plan.py`; each is a command of its own, in a process of its own,
with its own folder in --out, its log and its results. A part that is done is not run again, as long as sources, flags
and data are the same; one that was stopped goes on; one that fails is noted, and the campaign goes on. At the end of
--minutes, and at a signal, the running part gets SIGTERM: runs save, and the same command resumes them.

`campaign.md` in --out has the figures of every part, with machine, commit and command, and names what was not measured
and why; `campaign.json` has the same for programs. Both are written anew after each part. With --small, everything runs
in seconds, also on a CPU, to try it. Needs no TensorFlow: images come from .npz files (`docs/data_sources.md`).
"""

import pathlib

from absl import flags

from benchmarks import campaign_page, campaign_plan, child
from benchmarks.campaign_run import FAILED, Campaign, Options
from jaxcnn import command
from jaxcnn.config import UserError
from jaxcnn.machine import locks
from jaxcnn.train.interrupts import Interrupted

MINUTES = flags.DEFINE_float("minutes", 25.0, "Minutes for the whole campaign.", lower_bound=0.1)
OUT = command.define_path("out", None, "The folder of all files; a campaign that was begun there goes on.")
CIFAR10 = command.define_path("cifar10", "", "CIFAR-10 as arrays in an .npz.")
CIFAR100 = command.define_path("cifar100", "", "CIFAR-100 as arrays in an .npz.")
TORCH_SCRIPTS = command.define_path("torch_scripts", "", "A folder with airbench94_muon.py; empty: jaxcnn alone.")
PARTS = flags.DEFINE_list("parts", [], "Only these parts, in the order of the plan. Default: all.")
OTHER_SOURCES = flags.DEFINE_bool(
    "other_sources", False, "Go on with parts that other Python sources began, such as those of an earlier day; seeds "
        "and runs that are done are kept, and the page names the commits.")  # fmt: skip
SMALL = flags.DEFINE_bool("small", False, "Narrow networks and few images, in seconds, to try the command.")


def main() -> int:
    """Run the campaign; return the exit code."""
    parts = _parts()
    paths = {name: pathlib.Path(flag.value).absolute() for name, flag in _paths().items() if flag.value}
    for name, path in paths.items():
        if not (path.is_dir() if name == "torch_scripts" else path.is_file()):
            raise UserError(f"--{name}={path} does not exist")
    if not OUT.value:
        raise UserError("--out=<folder> is missing")
    folder = pathlib.Path(OUT.value).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    interrupts = command.interrupts()
    child.ready(interrupts)
    if "torch_scripts" not in paths:
        print("jaxcnn: no --torch_scripts: the speedrun on CIFAR-10 is not measured beside PyTorch")
    with (folder / ".lock").open("a+") as lock:
        try:
            if not locks.take(lock, wait=False):
                raise UserError(f"--out={folder} is in use by another campaign; wait for it, or choose another")
        except locks.NoLocksError as error:
            locks.tell(folder, error, "campaign")
        return _run(parts, Options(folder, paths, MINUTES.value, tuple(PARTS.value), OTHER_SOURCES.value))


def _run(parts: tuple[campaign_plan.Part, ...], options: Options) -> int:
    def keep(campaign: Campaign) -> None:
        campaign_page.write(campaign, small=SMALL.value)

    campaign = Campaign(parts, options, command.interrupts(), lambda line: print(line, flush=True), keep)
    try:
        campaign.run()
    except Interrupted as error:
        if campaign.states:
            keep(campaign)
        return child.say_stopped(error)
    for path in (campaign_page.JSON, campaign_page.MARKDOWN):
        print(f"wrote {options.folder / path}")
    if failed := [name for name, state in campaign.states.items() if state["state"] == FAILED]:
        raise UserError(f"{', '.join(failed)} failed: see {options.folder / campaign_page.MARKDOWN}")
    return 0


def _parts() -> tuple[campaign_plan.Part, ...]:
    parts = campaign_plan.small() if SMALL.value else campaign_plan.full()
    names = [part.name for part in parts]
    for name in PARTS.value:
        if name not in names:
            raise UserError(f"--parts: unknown value {name!r}; choose from {', '.join(names)}")
    return parts


def _paths() -> dict[str, flags.FlagHolder]:
    return {"cifar10": CIFAR10, "cifar100": CIFAR100, "torch_scripts": TORCH_SCRIPTS}


if __name__ == "__main__":
    command.run(main)
