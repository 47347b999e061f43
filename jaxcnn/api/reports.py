"""`jaxcnn.report` and `jaxcnn.doctor`: what these commands do, from a script or a notebook."""

import dataclasses
import html
import os
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jaxcnn.api import arguments
from jaxcnn.api.configs import Recipe, checked
from jaxcnn.api.errors import python_words
from jaxcnn.api.shown import table
from jaxcnn.api.training import with_data
from jaxcnn.config import Config, UserError
from jaxcnn.machine.extras import need

if TYPE_CHECKING:
    from jaxcnn.doctor.checks import Check

_COLUMNS = ("", "what", "found", "what to do")


@dataclasses.dataclass(frozen=True)
class Report:
    """A report that was written; a notebook shows where.

    Attributes:
      page: the file `report.html`; beside it are `tables.md`, `tables.tex`, `report.json` and `plots/`.
      remarks: what was read, what was written, and cautions.
    """

    page: pathlib.Path
    remarks: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(self.remarks)

    def _repr_html_(self) -> str:
        told = "<br>".join(map(html.escape, self.remarks))
        return f'<p><a href="{html.escape(self.page.absolute().as_uri())}">{html.escape(str(self.page))}</a></p>{told}'


def report(
    *folders: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    title: str | None = None,
    best_on_test: bool = False,
    explain: str = "",
) -> Report:
    """Write tables, plots and one page about runs and sweeps, as `python -m jaxcnn.report` does.

        jaxcnn.report("runs/imbalance").page

    Args:
      folders: workdirs of runs or sweeps, or folders of such.
      out: the folder to write to; None: "report" in the first folder.
      title: title of the page; None: the name of the sweep or folder.
      best_on_test: also show the setting with the highest test accuracy, labelled as a biased figure.
      explain: also show the most confused pairs of classes, with maps by this method, such as "gradcam".

    Raises:
      UserError: no folder was given, there is nothing to report, or `out` cannot be written.
      MissingExtra: the packages of jaxcnn[report] are not installed; a UserError.
    """
    if not folders:
        raise UserError('no folder was given; for example jaxcnn.report("runs/paper")')
    if not (title is None or isinstance(title, str)) or not isinstance(explain, str):
        raise UserError("title and explain must be texts")
    with python_words():
        need("report", "a report")
        from jaxcnn.reporting import explained, write

        if explain:
            explained.check(explain)
        read = [arguments.path(folder, "folder") for folder in folders]
        place = read[0] / "report" if out is None else arguments.path(out, "out")
        line = f"jaxcnn.report({', '.join(repr(str(folder)) for folder in read)})"
        remarks = write.report(read, place, title=title, best_on_test=best_on_test, explain=explain, command=line)
        return Report(place / "report.html", tuple(remarks))


@dataclasses.dataclass(frozen=True)
class Health:
    """The results of checks; `print` and notebooks show them as a table.

    Attributes:
      results: each has `name`, `status` ("ok", "warn" or "fail"), `found` and `advice`; those of images have
        `examples`, too.
      notes: remarks that a run on the data would also print.
    """

    results: "Sequence[Check]"
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether no check failed; there may be warnings."""
        return all(each.status != "fail" for each in self.results)

    def __str__(self) -> str:
        lines = []
        for each in self.results:
            advice = f"; {each.advice}" if each.advice else ""
            lines.append(f"{each.status:<4} {each.name}: {each.found}{advice}")
            lines += [f"       {example}" for example in getattr(each, "examples", ())]
        return "\n".join([*lines, *(f"note {note}" for note in self.notes)])

    def _repr_html_(self) -> str:
        rows = [(each.status, each.name, each.found, each.advice) for each in self.results]
        return table(_COLUMNS, rows) + "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)


def doctor(config: Recipe | None = None, *, data: Any = None, workdir: str | os.PathLike[str] = "runs") -> Health:
    """Check whether this machine is ready to train or, with `data`, whether these images are fit to train on.

        print(jaxcnn.doctor())
        print(jaxcnn.doctor(data="folder:photos"))

    As `python -m jaxcnn.doctor`, and with `data` as its `--data`: every image is read; leaks between the splits, equal
    and similar images, unreadable ones and rare classes are found.

    Args:
      config: what `jaxcnn.config` returns, or the name of a recipe; None: the default config.
      data: the images: as for `jaxcnn.train`; or True for those of the config; None: the machine is checked.
      workdir: folder of the runs, where the check of the machine writes a file.

    Raises:
      UserError: the config has mistakes, or arrays are not usable. Faults of the data and the machine raise nothing.
    """
    with python_words():
        wanted = Config() if config is None else checked(config)
        if data is None:
            from jaxcnn.doctor import checks
            from jaxcnn.machine.heartbeat import Cluster

            return Health(checks.examine(wanted, arguments.path(workdir, "workdir"), Cluster()))
        from jaxcnn.doctor.data import examine

        wanted, arrays = with_data(wanted, None if data is True else data, None)
        found = examine(wanted.data, wanted.task)
        del arrays  # known until here
        return Health(found.results, found.notes)
