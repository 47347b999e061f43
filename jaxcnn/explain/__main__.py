"""Explain the answers of a trained network: `python -m jaxcnn.explain --workdir=<run> --images=<files> --out=<folder>`.

Writes into --out: `index.html` (images and maps side by side), `maps.npz` (the maps [N, H, W] of each method),
`maps/` (PNG), and with --score or --randomise tables as CSV. `docs/explain.md` says what each method can show.
"""

from jaxcnn import at_start  # noqa: F401 (imported first: from now on, a signal is reported in one line)

# isort: split

import dataclasses
import pathlib
from typing import TYPE_CHECKING, Any

from absl import flags

from jaxcnn import command
from jaxcnn.command import network as chosen
from jaxcnn.command import output
from jaxcnn.config import UserError
from jaxcnn.machine import malloc, writable
from jaxcnn.machine.paths import separate
from jaxcnn.text import shown

if TYPE_CHECKING:
    from jaxcnn.explain.subject import Subject

DEFAULT_METHODS = ["gradcam", "integrated_gradients", "smoothgrad", "occlusion"]
NETWORK = chosen.define()
IMAGES = flags.DEFINE_multi_string(
    "images", [], "Image files and folders, separated by commas, or each in a separate flag; in place of --split."
)
SPLIT = flags.DEFINE_enum("split", None, ["train", "val", "test"], "Explain examples of this split of the run's data.")
EXAMPLES = flags.DEFINE_integer("examples", 24, "How many examples of the split, at random.", lower_bound=1)
METHODS = flags.DEFINE_list("methods", DEFAULT_METHODS, "Names of methods; 'all': all but the controls.")
TARGET = flags.DEFINE_string(
    "target", "predicted", "The output to explain: predicted, label (the true class), or the name of a class."
)
LAYER = flags.DEFINE_string(
    "layer", "", "The layer of class activation maps or of attention; default: the last with 4x4 positions."
)
BASELINE = flags.DEFINE_enum("baseline", "mean", ["mean", "black"], "What hidden pixels get: the mean colour or black.")
MASKS = command.define_path(
    "masks", None, "Folder of masks of the objects of --images, white on black: scored by pointing and overlap."
)
OPTION = flags.DEFINE_multi_string("option", [], "An option of a method, such as integrated_gradients.steps=100.")
OUT = command.define_path("out", "explained", "The folder to write to; created if it does not exist.")
SCORE = flags.DEFINE_boolean("score", False, "Score the methods, beside random maps and an edge detector.")
ROAD = flags.DEFINE_boolean("road", None, "Score by ROAD too; default: for images of at most 96 x 96 pixels.")
RANDOMISE = flags.DEFINE_boolean("randomise", False, "Draw the layers anew from the top down, and compare the maps.")
INDEPENDENT = flags.DEFINE_boolean("independent", False, "With --randomise, draw each layer anew alone, too.")
NEIGHBOURS = flags.DEFINE_integer("neighbours", 0, "Nearest training images to show for each image.", lower_bound=0)
AMONG = flags.DEFINE_integer("among", 20_000, "Training images to search, at most; chosen at random.", lower_bound=1)
FEATURE_MAP = flags.DEFINE_enum(
    "feature_map", "", ["", "pca", "tsne"], "Draw the images of --split (else the test split) by their features."
)
POINTS = flags.DEFINE_integer("points", 2000, "Maximum number of images in the map of the features.", lower_bound=3)
DEVICES = flags.DEFINE_integer("devices", 0, "How many local devices to use; 0: all.", lower_bound=0)
ROWS = flags.DEFINE_integer("rows", 0, "Most images in a call of the network; 0: by the free memory.", lower_bound=0)
SEED = flags.DEFINE_integer("seed", 0, "Seed of all random choices, such as the examples.", lower_bound=0)


def main() -> int:
    """Explain what the flags ask for; return the exit code."""
    folder = NETWORK.folder()
    places = [place for value in IMAGES.value for place in separate(value)]
    if bool(places) == bool(SPLIT.value):
        raise UserError("say what to explain: either --images=<file or folder>,… or --split=test")
    if INDEPENDENT.value and not RANDOMISE.value:
        raise UserError("--independent is for --randomise")
    if MASKS.value and not (places and SCORE.value):
        raise UserError("--masks is for --images with --score")
    for flag, asked, wanted in (
        (EXAMPLES, SPLIT.value, "--split"),
        (ROAD, SCORE.value, "--score"),
        (AMONG, NEIGHBOURS.value, "--neighbours"),
        (POINTS, FEATURE_MAP.value, "--feature_map"),
    ):
        if flag.present and not asked:
            raise UserError(f"--{flag.name} is for {wanted}; leave it out, or set {wanted}")
    from jaxcnn.train import trained, workdir

    workdir.check_run(folder)  # before --out is made
    out = pathlib.Path(OUT.value)
    writable.make_folder(out)
    from jaxcnn.explain import given, methods, objects, write
    from jaxcnn.explain.subject import Subject

    every = [name for name, method in methods.METHODS.items() if not method.control and "gate" not in method.needs]
    names = list(dict.fromkeys(every if METHODS.value == ["all"] else METHODS.value))
    for name in names:
        methods.find(name)
    if not names:
        raise UserError(f"--methods is empty; there are {', '.join(methods.METHODS)}")
    network, remarks = trained.load(folder, NETWORK.checkpoint.value, NETWORK.weights.value, DEVICES.value)
    malloc.keep()
    subject = Subject(network, ROWS.value)
    left_out: list[str] = []
    if METHODS.value == ["all"]:
        names, left_out = _possible(subject, [*names, *(["attention"] if subject.gates else [])])
    if places:
        images, notes = given.of_files(subject, places)
        if MASKS.value:
            masks = objects.of_files(subject, pathlib.Path(MASKS.value), images.names)
            images = dataclasses.replace(images, masks=masks)
    else:
        images, notes = given.of_split(subject, SPLIT.value or "", EXAMPLES.value, SEED.value), []
    for line in (*remarks, *left_out, *notes):
        print(output.fitting(f"jaxcnn: {line}"))
    options = _options(names)
    request = write.Request(
        methods=names,
        target=TARGET.value,
        layer=LAYER.value,
        baseline=BASELINE.value,
        options=options,
        score=SCORE.value,
        randomise=RANDOMISE.value,
        independent=INDEPENDENT.value,
        road=ROAD.value,
        seed=SEED.value,
        neighbours=NEIGHBOURS.value,
        among=AMONG.value,
        feature_map=FEATURE_MAP.value,
        split=SPLIT.value or "test",
        points=POINTS.value,
    )
    result = write.explained(subject, images, request, folder=out)
    title = f"{network.config.model.name}: {shown(folder.resolve().name)}"
    for path in write.write(subject, result, request, out, title):
        print(f"wrote {path}")
    if result.scores:
        from jaxcnn.explain import evaluation

        print(*evaluation.as_lines(evaluation.table(result.scores.of_each)), sep="\n")
    return 0


def _possible(subject: "Subject", names: list[str]) -> tuple[list[str], list[str]]:
    """The methods that a network can have, and a remark on each of the others."""
    possible, remarks = [], []
    for name in names:
        try:
            subject.prepared(name)
            possible.append(name)
        except UserError as error:
            remarks.append(f"--methods=all leaves out {name}: {error}")
    return possible, remarks


def _options(names: list[str]) -> dict[str, dict[str, Any]]:
    """The arguments of methods from --option=<method>.<name>=<value>."""
    found: dict[str, dict[str, Any]] = {}
    for text in OPTION.value:
        place, equals, value = text.partition("=")
        method, dot, name = place.partition(".")
        if not equals or not dot or method not in names:
            raise UserError(f"--option={text}: write <method>.<option>=<value>, of a method of --methods")
        try:
            given: Any = int(value) if value.lstrip("-").isdecimal() else float(value)
        except ValueError:
            if name != "segments":
                raise UserError(f"--option={text}: {value!r} is not a number") from None
            given = value
        found.setdefault(method, {})[name] = given
    return found


if __name__ == "__main__":
    command.run(main)
