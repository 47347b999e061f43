"""The progress of a run on a terminal: a bar that is rewritten, a lasting line for each evaluation, and a sparkline.

Each colour has one meaning: cyan is in progress, green is the best so far or the end, yellow needs attention.
"""

import dataclasses
import itertools
import math
import textwrap
import time
from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.text import Text

from jaxcnn.tasks.headline import Headline

UNDER_WAY, GOOD, LOOK, QUIET = "cyan", "bold green", "yellow", "dim"
BLOCKS = "▁▂▃▄▅▆▇█"
BAR = (8, 30)  # least and most columns of the bar
SPARKS = 40  # most columns of the sparkline
REFRESHES = 4  # updates of the bar in a second

# Replacements of longer words in lasting lines, applied in this order until a line fits.
SHORTER = (("  best so far", "  best"), ("validation ", "val "), ("accuracy ", "acc "))


def duration(seconds: float) -> str:
    """Seconds as text, such as "1:02:03" or "2:03"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def epochs(step: int, steps_per_epoch: float) -> str:
    """The epochs after `step` steps: "30" after the step in which the 30th epoch ends, else such as "2.07"."""
    nearest = round(step / steps_per_epoch)
    whole = nearest and math.ceil(round(nearest * steps_per_epoch, 6)) == step
    return f"{nearest}" if whole else f"{step / steps_per_epoch:.2f}"


def epochs_at(step: int, epoch: float) -> str:
    """The same for a step that a record or an event gives beside its `epoch`, which need not be whole."""
    return epochs(step, step / epoch) if step > 0 and epoch > 0 else f"{epoch:.6g}"


def epochs_with_decimals(step: int, steps_per_epoch: float) -> str:
    """The same for lines that programs read: always with two decimals, such as "30.00"."""
    return f"{float(epochs(step, steps_per_epoch)):.2f}"


def sparkline(values: Sequence[float], columns: int) -> str:
    """Values as a row of at most `columns` blocks, the lowest value as the lowest block; more values are averaged."""
    count = min(columns, len(values))
    edges = [round(k * len(values) / count) for k in range(count + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]
    low, high = min(means), max(means)
    return "".join(BLOCKS[round((len(BLOCKS) - 1) * (mean - low) / ((high - low) or 1.0))] for mean in means)


def wrapped(line: str, columns: int) -> str:
    """A line broken between words where a terminal would break it anywhere; long words, such as paths, stay whole."""
    indent = " " * (len(line) - len(line.lstrip(" ")))
    broken = textwrap.wrap(
        line, columns, subsequent_indent=f"{indent}  ", break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(broken) or line


@dataclasses.dataclass(frozen=True)
class Length:
    """The length of a run, and how its progress is counted.

    Attributes:
      total_steps: number of steps.
      steps_per_epoch: steps in an epoch; need not be whole.
      in_steps: whether the config asks for steps, so that progress is counted in them and not in epochs.
    """

    total_steps: int
    steps_per_epoch: float
    in_steps: bool

    def counted(self, step: int) -> str:
        """The progress of a run, such as "epoch 2 of 30" or "step 120 of 5,000"."""
        total = epochs(self.total_steps, self.steps_per_epoch)
        if self.in_steps or not total.isdecimal():
            return f"step {step:,} of {self.total_steps:,}"
        under_way = max(1, math.ceil(round(step / self.steps_per_epoch, 6)))
        return f"epoch {min(under_way, int(total)):{len(total)}} of {total}"


@dataclasses.dataclass(frozen=True)
class Training:
    """The figures in the bar since the last record: mean loss, headline figure as text, images per second."""

    loss: float
    figure: str
    images_per_second: float


class Bar:
    """The last line of a terminal while a run trains; its own thread draws it from the latest values.

    A step only stores its number, so it costs nothing; no metric is read for the bar.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._length: Length | None = None
        self._step, self._first, self._began = 0, 0, 0.0
        self._training: Training | None = None
        self._phase = ""
        self._live = Live(get_renderable=self.render, console=console, transient=True, refresh_per_second=REFRESHES)

    def stepped(self, step: int, length: Length) -> None:
        """Store the number of a step that is made and whose metrics are read."""
        if self._length is None:
            self._length, self._first, self._began = length, step, time.monotonic()
            self._live.start()
        self._step, self._phase = step, ""

    def trained(self, training: Training) -> None:
        """Store the figures of a training record."""
        self._training = training

    def phase(self, what: str) -> None:
        """Show what is done between steps, such as "validating"."""
        self._phase = what

    def stop(self) -> None:
        """Stop drawing, and erase the bar."""
        self._live.stop()

    def render(self) -> Text:
        """The text of the bar, for the width of the terminal."""
        if self._length is None:
            return Text("")
        length, columns = self._length, self._console.width - 1
        share = self._step / length.total_steps
        parts = [length.counted(self._step), f"{math.floor(100 * share)} %", self._phase or self._left(length)]
        if (told := self._training) is not None:
            parts += [f"loss {told.loss:.4f}", told.figure.strip(), f"{told.images_per_second:,.0f} images/s"]
        parts = [part for part in parts if part]
        while len(parts) > 1 and len("  ".join(parts)) + (BAR[0] + 2 if len(parts) > 3 else 0) > columns:
            parts.pop()
        room = min(BAR[1], columns - len("  ".join(parts)) - 2)
        line = Text(f"{parts[0]}  ", no_wrap=True, overflow="crop")
        if room >= BAR[0]:
            full = math.floor(room * share)
            ascii_only = self._console.options.ascii_only
            line.append(("#" if ascii_only else "━") * full, UNDER_WAY)
            line.append(("-" if ascii_only else "─") * (room - full), QUIET)
            line.append("  ")
        line.append("  ".join(parts[1:3]))
        line.append("".join(f"  {part}" for part in parts[3:]), QUIET)
        return line

    def _left(self, length: Length) -> str:
        """The time left at the pace so far, including evaluations."""
        done = self._step - self._first
        if done <= 0:
            return ""
        seconds = (time.monotonic() - self._began) / done * (length.total_steps - self._step)
        return f"{duration(seconds)} left"


def evaluation_line(
    length: Length, step: int, loss: float, headline: Headline, value: float, *, averaged: bool, best: bool
) -> str:
    """The lasting line of an evaluation; `averaged`: loss and headline figure are those of the moving average."""
    total = epochs(length.total_steps, length.steps_per_epoch)
    count = epochs(step, length.steps_per_epoch)
    where = f"step {step:{len(str(length.total_steps))}}" if length.in_steps else f"epoch {count:>{len(total)}}"
    average = "  (moving average)" if averaged else ""
    shown = headline.shown(value)
    return (
        f"  {where}  validation loss {loss:.4f}  {headline.label} {shown:>6}{'  best so far' if best else ''}{average}"
    )


def fitted_words(line: str, columns: int) -> str:
    """A lasting line, with shorter words as needed to fit the width."""
    for word, shorter in (("  (moving average)", ""), *SHORTER):
        if len(line) > columns:
            line = line.replace(word, shorter)
    return line


def curve_line(headline: Headline, points: Sequence[tuple[str, float]], columns: int, *, blocks: bool = True) -> str:
    """The headline figure over all evaluations in one line; empty if there are fewer than two.

    Args:
      headline: the figure.
      points: epoch, as text, and value of each evaluation.
      columns: columns of the terminal.
      blocks: whether the terminal can show the blocks of a sparkline.
    """
    if len(points) < 2:
        return ""
    values = [value for _, value in points]
    epoch, best = max(points, key=lambda point: headline.score(point[1]))
    end = f" {headline.shown(values[-1])}, best {headline.shown(best)} at epoch {epoch}"
    for what in (f"validation {headline.label} ", f"{headline.label} ", ""):
        start = f"  {what}{headline.shown(values[0])} "
        room = min(SPARKS, len(values), columns - len(start) - len(end))
        if room >= min(BAR[0], len(values)):
            break
    return f"{start}{sparkline(values, room)}{end}" if blocks and room > 1 else f"{start}to{end}"
