"""The report of `benchmarks.input`: lines of text, and the section of the Markdown file."""

from typing import Any

from benchmarks import report
from benchmarks.loaders import JPEG_QUALITY, PADDING


def lines(result: dict[str, Any]) -> list[str]:
    """The lines of text for a set: one for each loader."""
    return [f"{name}: {_speed(figures)}" for name, figures in result["loaders"].items()]


def _speed(figures: dict[str, Any]) -> str:
    if "error" in figures:
        return f"failed: {figures['error']}"
    return f"{report.figure(figures['images_per_second'])} images/s"


CORES = 16


def _of_cores(record: dict[str, Any]) -> str:
    """A sentence on what loaders that use only the host would reach on `CORES` such cores."""
    told = [
        f"{name.removeprefix('jaxcnn, ')} {report.figure(figures['images_per_second'] * CORES / each['cores'])}"
        for each in record["sets"]
        for name, figures in each["loaders"].items()
        if name.startswith("jaxcnn, ") and "error" not in figures
    ]
    return f" By the arithmetic, {CORES} such cores give, in images/s: {'; '.join(told)}." if told else ""


def markdown(record: dict[str, Any]) -> str:
    """The section of the Markdown file: a description of the measurement and a table."""
    text = (
        f"Images per second of batches of {record['batch_size']}, normalised, randomly cropped (padding of {PADDING}) "
        f"and flipped: medians of {record['rounds']} rounds in which the loaders take turns of about "
        f"{record['seconds']:g} s, each a process of its own that is stopped while it is not its turn; what lay ready "
        "from before is not counted. *Resident* holds all decoded pixels on the device. *Stream* and *DataLoader* read "
        "pixels from memory in the first set, and decode every JPEG with Pillow in the second. The JPEGs are small "
        f"images enlarged (bicubic, quality {JPEG_QUALITY}), so they are smoother, and quicker to decode, than "
        "photographs. DataLoader draws with replacement, so that it never waits at the end of an epoch. The ratio is "
        "that to the fastest DataLoader of the set. *Batches of uint8* are not augmented and stay on the host: what an "
        "accelerator would be fed with. Those decoded before come from the file of data.cache, and for DataLoader from "
        "a memory map of an array. jaxcnn decodes by the extra [jpeg] where it is installed, except where a row says "
        f"that it was Pillow alone.{_of_cores(record)}"
    )
    rows = []
    for each in record["sets"]:
        for number, (name, figures) in enumerate(each["loaders"].items()):
            row = [each["title"] if number == 0 else "", name, _speed(figures).removesuffix(" images/s")]
            ratio = figures.get("ratio")
            row.append(f"{ratio['median']:.2f} ({ratio['lowest']:.2f} to {ratio['highest']:.2f})" if ratio else "-")
            rows.append(row)
    table = report.table(["set", "loader", "images/s", "ratio"], rows)
    return "\n\n".join(["## jaxcnn and PyTorch: input", report.describe(record), text, table])
