"""Measure a trained network on damaged images: `python -m jaxcnn.robustness --workdir=runs/vgg16 --out=robust`.

Evaluates a split undamaged and with noise, blur, weather and coding in five severities (Hendrycks & Dietterich 2019),
and writes a table, its figures and a picture. `--votes` holds probabilities against human votes, `--leave_out` leaves
images out, such as those that have a duplicate in the training split.

Exit codes: 0 done; 2 an error, reported in one line.
"""

from jaxcnn import at_start  # noqa: F401 (imported first: from now on, a signal is reported in one line)

# isort: split

import pathlib

from absl import flags

from jaxcnn import command
from jaxcnn.command import network as chosen
from jaxcnn.command import output
from jaxcnn.config import UserError, convert
from jaxcnn.machine import writable
from jaxcnn.machine.extras import need

NETWORK = chosen.define()
SPLIT = flags.DEFINE_enum("split", "test", ["train", "val", "test"], "The split of the run's data.")
DATA = command.define_path("data", "", "Where the data lies now, if it was moved.")
CORRUPTIONS = flags.DEFINE_list("corruptions", ["all"], "Kinds of damage, with commas between; all, or none.")
SEVERITIES = flags.DEFINE_list("severities", ["1", "2", "3", "4", "5"], "Severities, from 1 to 5.")
EXAMPLES = flags.DEFINE_integer("examples", 0, "Number of examples of the split, evenly spaced; 0: all.", lower_bound=0)
SEED = flags.DEFINE_integer("seed", 0, "Seed of the damage.", lower_bound=0)
VOTES = command.define_path("votes", "", "A .npy file of human votes for each image of the split, [n, classes].")
LEAVE_OUT = command.define_path("leave_out", "", "A text file with the index of an image of the split in each line.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 0, "Images in a batch; 0: that of training.", lower_bound=0)
OUT = command.define_path("out", "", "Also write <out>.json, <out>.md and <out>.png.")


def main() -> int:
    """Make the measurements given by the flags; return the exit code."""
    out = pathlib.Path(OUT.value) if OUT.value else None
    if out is not None:
        writable.check_file(out)
        need("report", f"--out={out}", "matplotlib")
    from jaxcnn.data.corruptions import KINDS

    names = list(KINDS) if CORRUPTIONS.value == ["all"] else [] if CORRUPTIONS.value == ["none"] else CORRUPTIONS.value
    for name in names:
        if name not in KINDS:
            hint = convert.nearest(name, KINDS)
            raise UserError(f"--corruptions={name}: no such kind{hint}; choose from {', '.join(KINDS)}")
    if not {*SEVERITIES.value} <= {"1", "2", "3", "4", "5"} or not SEVERITIES.value:
        raise UserError(f"--severities={','.join(SEVERITIES.value)}: severities are numbers from 1 to 5")
    from jaxcnn.train import assess, robustness, workdir

    network = NETWORK.load(devices=0)
    split, notes = assess.open_split(network, NETWORK.folder(), SPLIT.value, DATA.value)
    if LEAVE_OUT.value and (remark := robustness.remark_on_order(split)):
        notes = [*notes, remark]
    for note in notes:
        print(output.fitting(f"jaxcnn: {note}"))
    kept = robustness.kept(len(split), pathlib.Path(LEAVE_OUT.value) if LEAVE_OUT.value else None, EXAMPLES.value)
    votes = robustness.read_votes(pathlib.Path(VOTES.value), split) if VOTES.value else None
    part = split.take(kept, split.name, split.description)
    headline = network.spec.task.evaluation.headline
    results = []
    severities = sorted({int(each) for each in SEVERITIES.value})
    for result in robustness.measure(network, part, names, severities, SEED.value, BATCH_SIZE.value):
        results.append(result)
        how = f"{result.corruption} {result.severity}" if result.severity else "undamaged"
        print(f"{how}: {headline.label} {headline.shown(result.value)}  loss {result.loss:.4f}", flush=True)
    told = {
        "step": network.step,
        "weights": network.weights,
        "split": split.name,
        "data": split.description,
        "examples": len(part),
        "left_out": len(split) - len(part),
        "seed": SEED.value,
        "headline": headline.name,
        **robustness.summary(results),
    }
    lines = robustness.table(told, headline)
    if votes is not None:
        told["votes"] = robustness.votes_of(network, part, votes[kept], BATCH_SIZE.value)
        lines += robustness.votes_in_words(told["votes"])
    print(*lines, sep="\n")
    if out is not None:
        text = f"{split.description}: {len(part)} images, step {network.step}, {network.weights} weights"
        workdir.write_json(out.with_suffix(".json"), told)
        out.with_suffix(".md").write_text("\n".join([text, "", *lines]) + "\n", encoding="utf-8")
        if names:
            robustness.draw(told, headline, text, out.with_suffix(".png"))
        print(f"wrote {out.with_suffix('.json')}, .md" + (" and .png" if names else ""))
    return 0


if __name__ == "__main__":
    command.run(main)
