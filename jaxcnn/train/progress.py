"""The progress of a run: what it keeps in addition to the state of its network."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from jaxcnn.learn.metrics import COUNT, LOSS


@dataclasses.dataclass
class Progress:
    """What a run keeps besides its state; every checkpoint has it, so a resumed run continues as if never stopped.

    Attributes:
      window: sums of loss, metrics and count over the steps since the last training record, by name.
      window_seconds: seconds of training since then.
      last_loss: loss of the last step read; always finite.
      evaluated, score: the last evaluated step, and the score of its headline figure on validation; larger is better.
      best_score, best_step: the best score, and its step; None and 0 before the first evaluation with a finite one.
      advanced_score, advanced_step: the last best score that was better than the one before by `run.min_delta`, from
        which `run.patience` counts, and its step.
      reduced: the last step after which `schedule.name="plateau"` lowered the rate; 0: none.
      way: the way in which a population made the steps so far; empty: none, or as in a single run.
      exchanged: the last step at which the state was taken from another member of a population.
      log_bytes, log_crc32: length of `metrics.jsonl`, and CRC-32 of these bytes (None in records of older versions).
      reset_seconds: seconds of the new state: initial weights, and those that come from the data (whitening).
      images, train_seconds, eval_seconds, compile_seconds, wall_seconds: sums over all starts.
      starts: number of starts of the run.
    """

    window: dict[str, float] = dataclasses.field(default_factory=dict)
    window_seconds: float = 0.0
    last_loss: float | None = None
    evaluated: int = 0
    score: float = 0.0
    best_score: float | None = None
    best_step: int = 0
    advanced_score: float | None = None
    advanced_step: int = 0
    reduced: int = 0
    way: str = ""
    exchanged: int = 0
    log_bytes: int = 0
    log_crc32: int | None = 0
    reset_seconds: float | None = None
    images: int = 0
    train_seconds: float = 0.0
    eval_seconds: float = 0.0
    compile_seconds: float = 0.0
    wall_seconds: float = 0.0
    starts: int = 0

    def validated(self, step: int, score: float, least: float) -> bool:
        """Note the score of a validation; return whether it is the best so far, which one that is not finite never is.

        Args:
          step: the step after which it was made.
          score: the score of its headline figure.
          least: `run.min_delta`.
        """
        self.evaluated, self.score = step, score
        if _beats(score, self.advanced_score, least):
            self.advanced_score, self.advanced_step = score, step
        better = _beats(score, self.best_score, 0.0)
        if better:
            self.best_score, self.best_step = score, step
        return better

    @classmethod
    def of_record(cls, progress: dict[str, Any], metrics: Sequence[str]) -> "Progress":
        """The progress in a checkpoint's record; `metrics` are the names of the task's metrics.

        Earlier versions had accuracies as scores, and the sums as a list.
        """
        values = {"log_crc32": None} | progress
        for name, before in (("score", "accuracy"), ("best_score", "best_accuracy")):
            if before in values:
                values[name] = values.pop(before)
        if not values.get("best_step"):
            values["best_score"] = None
        if "advanced_step" not in values:
            values |= {"advanced_score": values.get("best_score"), "advanced_step": values.get("best_step", 0)}
        if isinstance(values.get("window"), list):
            values["window"] = dict(zip((LOSS, *metrics, COUNT), values["window"], strict=True))
        return cls(**values)


def _beats(score: float, best: float | None, least: float) -> bool:
    """Whether a score is better than the best one so far by more than `least`; earlier versions kept NaN."""
    return math.isfinite(score) and (best is None or not math.isfinite(best) or score > best + least)
