"""The parts of `benchmarks.campaign`, in the order of their value.

Time on a GPU is often short and may end at any moment, so the most important figures are measured first:

1. A smoke run and the facts of the machine. Without a command that trains from start to end nothing else counts.
2. Equal bits. jaxcnn's first promise is that a run that was killed ends with the same bits; on a GPU it is unproved,
   and it is a yes or a no after a few minutes. Of VGG16, which has convolutions, BatchNorm and max-pool, and fewer
   layers to compile than ResNet50.
3. Speedruns beside the PyTorch script they come from, or, on CIFAR-100, beside their recipe in plain PyTorch. A time
   and an accuracy of many seeds, with a rival on the same card in the same minutes, is the strongest figure that half
   an hour can give. CIFAR-10 is first: its rival is the script of the record's author.
4. The six cells of networks by sets. These matter most to users but need hours: they use the time that is left, and
   continue another day. Most of their minimum time goes into nine compilations.
5. Steps and inference beside PyTorch's. ResNet50 first: it is the one network that was slower there.
6. Kernels and bytes of ResNet50's step. They explain a figure of 5, and prove none.
7. The constants of scaling. One GPU gives only the step and input of one device.

Of the time that is left, each part gets its share among the parts that are left, but not less than its least minutes;
what it does not use goes to those after it. A part that could not have its least is not begun.
"""

import dataclasses
from collections.abc import Mapping

VARIANT = "strong"  # of the configs of the cells
CIFAR100 = "benchmarks.torch_cifar100"  # the recipe of its speedrun in PyTorch
SMALL_SPEED = ("--rounds=1", "--seconds=0")
QUIET = ("--config.run.tensorboard=False", "--config.run.curves=False")


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of the campaign: a command with its own folder.

    Attributes:
      name: name of the part and of its folder.
      title: what it measures, in a few words.
      command: module and flags; `{folder}` is its folder, `{cifar10}`, `{cifar100}` and `{torch_scripts}` are paths.
      result: the JSON file in its folder that a finished command has written.
      page: the Markdown file with its figures; empty: there is none.
      share: share of the time left; the shares need not sum to 1.
      least: minutes that it needs at least.
      gpu: whether it needs a GPU.
      needs: options without which it cannot run.
      packages: packages without which it cannot run.
      beside: flags that are added if an option is given, or a package is installed, by the option or package.
      timed: whether its command takes --minutes.
      resumable: whether a later start continues where it stopped; otherwise it begins again.
    """

    name: str
    title: str
    command: tuple[str, ...]
    result: str
    page: str = ""
    share: float = 1.0
    least: float = 1.0
    gpu: bool = True
    needs: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    beside: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    timed: bool = False
    resumable: bool = True


def full() -> tuple[Part, ...]:
    """The parts as they are measured on a GPU."""
    return (
        Part(
            "smoke", "The main command, from start to end",
            ("jaxcnn.main", "--config=speedrun_cifar10:smoke", "--workdir={folder}/run"),
            "run/summary.json", share=1, least=2, gpu=False,
        ),
        Part(
            "determinism", "Equal bits of equal starts, and of a run that was stopped and resumed",
            ("benchmarks.determinism", "--out={folder}/determinism", "--", "--config=vgg16_cifar10",
             "--config.data.source=npz:{cifar10}", "--config.model.dtype=bfloat16", "--config.run.epochs=8", *QUIET),
            "determinism.json", "determinism.md", share=4, least=3, needs=("cifar10",),
        ),
        _speedruns("cifar10", "--config=sweeps/speedrun_cifar10:many", share=7, least=6, script="airbench94_muon.py"),
        _speedruns("cifar100", "--config=sweeps/speedrun_cifar100:many", share=5, least=2.5, module=CIFAR100),
        Part(
            "cells", "The networks on both sets",
            ("benchmarks.cells", "--out={folder}/cells", "--cifar10={cifar10}", "--cifar100={cifar100}",
             f"--variant={VARIANT}", "--", "--config.model.dtype=bfloat16"),
            "cells.json", "cells.md", share=16, least=8, needs=("cifar10", "cifar100"), timed=True,
        ),
        _peers("peers-resnet50", "resnet50", "reduce-overhead", share=3, least=2),
        _peers("peers-alexnet-vgg16", "alexnet,vgg16", "reduce-overhead", share=3, least=2.5),
        _peers("peers-airbench", "airbench", "compile", share=1, least=1.5),
        Part(
            "kernels", "Kernels and bytes of a step of ResNet50",
            ("benchmarks.kernels", "--model=resnet50", "--out={folder}/kernels"),
            "kernels.json", "kernels.md", share=1, least=0.7, resumable=False,
        ),
        Part(
            "scaling", "The step of one device, for the model of scaling",
            ("jaxcnn.scaling", "--config=resnet50_cifar10", "--config.data.source=npz:{cifar10}",
             "--config.model.dtype=bfloat16", "--models=alexnet,vgg16,resnet50", "--devices=1", "--mode=strong",
             "--out={folder}"),
            "scaling.json", "scaling.md", share=1, least=1.5, needs=("cifar10",), packages=("matplotlib",),
            resumable=False,
        ),
    )  # fmt: skip


def small() -> tuple[Part, ...]:
    """The same parts in seconds, also on a CPU: narrow networks and few images. Their figures mean nothing."""
    tiny = ("--config=quickstart:smoke", *QUIET)
    return (
        Part(
            "smoke", "The main command, from start to end",
            ("jaxcnn.main", *tiny, "--workdir={folder}/run"),
            "run/summary.json", gpu=False, least=0,
        ),
        Part(
            "determinism", "Equal bits of equal starts, and of a run that was stopped and resumed",
            ("benchmarks.determinism", "--out={folder}/determinism", "--plain=False", "--", *tiny,
             "--config.run.epochs=10", "--config.checkpoint.every_epochs=1"),
            "determinism.json", "determinism.md", gpu=False, least=0,
        ),
        dataclasses.replace(
            _speedruns("cifar10", "--config=sweeps/speedrun_cifar10:smoke", script="airbench94_muon.py", small=True),
            gpu=False,
        ),
        dataclasses.replace(
            _speedruns("cifar100", "--config=sweeps/speedrun_cifar100:smoke", module=CIFAR100, small=True), gpu=False
        ),
        Part(
            "cells", "The networks on both sets",
            ("benchmarks.cells", "--out={folder}/cells", "--models=alexnet", "--cifar10={cifar10}",
             "--cifar100={cifar100}", "--probe_steps=4", "--most_epochs=1", "--most_seeds=1", "--together_seeds=2",
             "--", "--config.model.width=0.0625", "--config.global_batch_size=16", "--config.data.val_examples=16",
             "--config.run.eval_batch_size=16", "--config.schedule.warmup=0"),
            "cells.json", "cells.md", gpu=False, least=0, needs=("cifar10", "cifar100"), timed=True,
        ),
        Part(
            "peers-alexnet", "Steps and inference of AlexNet",
            ("benchmarks.peers", "--peers=jaxcnn", "--models=alexnet", "--batch_sizes=4",
             "--width=0.0625", "--devices=cpu", *SMALL_SPEED, "--out={folder}/peers"),
            "peers.json", "peers.md", gpu=False, least=0, resumable=False,
        ),
        Part(
            "kernels", "Kernels and bytes of a step of AlexNet",
            ("benchmarks.kernels", "--model=alexnet", "--width=0.0625", "--batch_size=4", "--steps=1", "--traced=1",
             "--out={folder}/kernels"),
            "kernels.json", "kernels.md", gpu=False, least=0, resumable=False,
        ),
        Part(
            "scaling", "The step of one device, for the model of scaling",
            ("jaxcnn.scaling", "--config=quickstart", "--config.model.width=0.25", "--devices=1", "--mode=strong",
             *SMALL_SPEED, "--out={folder}"),
            "scaling.json", "scaling.md", gpu=False, least=0, packages=("matplotlib",), resumable=False,
        ),
    )  # fmt: skip


def _speedruns(
    name: str,
    config: str,
    share: float = 1.0,
    least: float = 0.0,
    script: str = "",
    module: str = "",
    small: bool = False,
) -> Part:
    """A part with many seeds of a speedrun, beside those of a rival in PyTorch.

    The rival is `script` if its folder is given, or `module` if PyTorch is installed.
    """
    own = ("--config.run.tensorboard=False", "--config.run.curves=False", "--config.checkpoint.every_epochs=0")
    source = () if small else (f"--config.data.source=npz:{{{name}}}",)
    arrays = () if small and not module else (f"--npz={{{name}}}",)
    told = f"--torch_script={{torch_scripts}}/{script}" if script else f"--torch_module={module}"
    rival = (
        told,
        *arrays,
        *(("--runs=2",) if small else ()),
        *(("--torch_arguments=small",) if small and module else ()),
    )
    return Part(
        f"speedruns-{name}", f"Seeds of the speedrun on {name.upper().replace('CIFAR', 'CIFAR-')}",
        ("benchmarks.speedruns", config, "--out={folder}/speedruns", f"--turns={1 if small else 2}",
         "{beside}", "--", *source, *own),
        "speedruns.json", "speedruns.md", share=share, least=least, needs=() if small and not module else (name,),
        packages=("optuna",), beside={"torch_scripts" if script else "torch": rival}, timed=True,
    )  # fmt: skip


def _peers(name: str, models: str, way: str, share: float, least: float) -> Part:
    """A part with steps and inference beside PyTorch's, run in the way that was the fastest for these networks."""
    titles = {"alexnet": "AlexNet", "vgg16": "VGG16", "resnet50": "ResNet50"}
    networks = " and ".join(titles.get(model, model) for model in models.split(","))
    return Part(
        name, f"Steps and inference of {networks} beside PyTorch's, in bfloat16",
        ("benchmarks.peers", f"--models={models}", "--devices=gpu", "--dtype=bfloat16",
         *(() if models == "airbench" else ("--batch_sizes=128",)), f"--torch_variants={way}", "--seconds=1",
         "--out={folder}/peers"),
        "peers.json", "peers.md", share=share, least=least, packages=("torch",), resumable=False,
    )  # fmt: skip
