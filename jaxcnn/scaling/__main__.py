"""Measure or predict how training scales: `python -m jaxcnn.scaling --config=configs/alexnet_cifar10.py`.

Times the real training step on 1, 2, 4, … devices, each count in a separate process, under strong and weak scaling, and
writes `scaling.json`, `.md` and `.png` to --out. With --simulate, it compiles the step for a machine that is not
available and predicts instead (`simulated-<machine>.json`, …). `docs/scaling.md` explains both.
"""

from jaxcnn import at_start  # noqa: F401 (imported first: from now on, a signal is reported in one line)

# isort: split

import pathlib
import sys

from absl import flags

from jaxcnn import command
from jaxcnn.config import Config, UserError, from_config_dict, to_dict
from jaxcnn.machine import writable
from jaxcnn.machine.extras import need
from jaxcnn.text import counted

CONFIG = command.define_config("The config whose step is measured; its global_batch_size is that of one device.")
MODELS = flags.DEFINE_list("models", [], "Networks in place of config.model.name, such as alexnet,vgg16,resnet50.")
OUT = command.define_path("out", "scaling", "The folder to write to; created if it does not exist.")
MODE = flags.DEFINE_list(
    "mode", ["strong", "weak"], "strong (constant global batch), weak (constant batch per device), or both."
)
DEVICES = flags.DEFINE_list(
    "devices", [], "Counts of devices in one process. Default: 1, 2, 4, … up to all local devices."
)
PROCESSES = flags.DEFINE_list("processes", [], "Counts of processes with one device each, such as 1,2,4.")
SECONDS = flags.DEFINE_float(
    "seconds", 5.0, "Approximate duration of each measurement; at least one step.", lower_bound=0.0
)
ROUNDS = flags.DEFINE_integer("rounds", 5, "Number of parts of a measurement.", lower_bound=1)
SIMULATE = flags.DEFINE_string(
    "simulate", "", "A machine to compile for: gpu:256, gpu:a100:64, tpu:v5e:16x16, cpu:512."
)
UTILISATION = flags.DEFINE_float(
    "utilisation", 0.2, "Assumed share of the peak that computing reaches (--simulate).", 0.0, 1.0
)
STEP_SECONDS = flags.DEFINE_list(
    "step_seconds", [], "Measured seconds of a step on one such device, for each network; in place of --utilisation."
)
VIRTUAL_DEVICES = (1, 2, 4, 8)  # if there is only one device


def main() -> int:
    """Measure or predict as given by the flags; return the exit code."""
    from jaxcnn.train import network_of_weights

    config = network_of_weights.of(command.read_config(CONFIG))
    networks = [_with_model(config, name) for name in MODELS.value] or [config]
    folder = pathlib.Path(OUT.value)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out={folder} is not a folder; choose another")
    work = _simulate if SIMULATE.value else _measure
    need("report", "the picture", "matplotlib")
    for path in work(networks, folder):
        print(f"wrote {path}")
    return 0


def _measure(networks: list[Config], folder: pathlib.Path) -> list[pathlib.Path]:
    from jaxcnn.scaling import measure, pictures, report

    for mode in MODE.value:
        _among("mode", mode, measure.MODES)
    devices, processes = _counts("devices", DEVICES.value), _counts("processes", PROCESSES.value)
    machine = measure.probe()
    if not devices and not processes:
        devices = _powers_of_two(machine["devices"]) if machine["devices"] > 1 else list(VIRTUAL_DEVICES)
    plan = measure.Plan(networks, MODE.value, devices, processes, SECONDS.value, ROUNDS.value)
    measure.check(plan, machine)
    writable.make_folder(folder)
    print(f"jaxcnn: measuring on {machine['device_kind']}, {counted(len(machine['cores']), 'core')}")
    found = measure.run(plan, machine, print)
    record = report.provenance(sys.argv[1:], found["environment"])
    record |= {"mode": "+".join(MODE.value), "machine": machine, "rows": found["rows"]}
    return report.write(folder, "scaling", record, report.measured(record, "scaling.png"), pictures.draw_measured)


def _simulate(networks: list[Config], folder: pathlib.Path) -> list[pathlib.Path]:
    from jaxcnn.scaling import absent, machines, pictures, report

    machine = machines.parse(SIMULATE.value)
    seconds = _seconds(STEP_SECONDS.value, len(networks))
    if not UTILISATION.value:
        raise UserError("--utilisation must be above 0")
    writable.make_folder(folder)
    found = absent.simulate(machine, networks, UTILISATION.value, seconds, print)
    record = report.provenance(sys.argv[1:], found.pop("environment")) | found
    print(*report.simulated_lines(record), sep="\n")
    stem = f"simulated-{str(machine).replace(':', '-')}"
    return report.write(folder, stem, record, report.simulated(record, f"{stem}.png"), pictures.draw_simulated)


def _with_model(config: Config, name: str) -> Config:
    """The config with another network, checked again."""
    tree = to_dict(config)
    tree["model"]["name"] = name
    return from_config_dict(tree)


def _among(flag: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UserError(f"--{flag}: unknown value {value!r}; choose from {', '.join(known)}")


def _counts(flag: str, values: list[str]) -> list[int]:
    if not all(value.isdecimal() and int(value) > 0 for value in values):
        raise UserError(f"--{flag}={','.join(values)} must be whole numbers of at least 1")
    return sorted({int(value) for value in values})


def _powers_of_two(most: int) -> list[int]:
    return [2**i for i in range(most.bit_length()) if 2**i <= most]


def _seconds(values: list[str], networks: int) -> list[float | None]:
    if not values:
        return [None] * networks
    try:
        seconds = [float(value) for value in values]
    except ValueError:
        seconds = [0.0]
    if len(seconds) != networks or not all(each > 0 for each in seconds):
        raise UserError(f"--step_seconds={','.join(values)} must be {networks} positive numbers, one for each network")
    return list(seconds)


if __name__ == "__main__":
    command.run(main)
