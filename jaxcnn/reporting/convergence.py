"""The training time to convergence: when a run was first about as good as at its end."""

from jaxcnn.reporting.findings import validation_curve
from jaxcnn.reporting.read import Run
from jaxcnn.reporting.settings import Setting, sample
from jaxcnn.reporting.statistics import Spread, spread

WITHIN = 0.005  # for a figure that is a share: half a percentage point
NOTE = (
    "To convergence: seconds of training until an evaluation on validation was first within half a percentage point "
    "of the last one, or better; the resolution is the interval between evaluations."
)


def seconds_of_run(run: Run) -> float | None:
    """Training seconds until the first evaluation that is worse than the last by at most `WITHIN`.

    None for a run with fewer than two evaluations, or whose headline figure is no share.
    """
    curve = validation_curve(run)
    if len(curve) < 2 or not run.headline.percent:
        return None
    scores = [(seconds, run.headline.score(figure)) for _, seconds, figure in curve]
    return next(seconds for seconds, score in scores if score >= scores[-1][1] - WITHIN)


def seconds(setting: Setting) -> Spread | None:
    """The training seconds to convergence over the seeds of a setting that finished; None if no run tells."""
    return spread([seconds_of_run(run) for run in setting.finished], [sample(run) for run in setting.finished])
