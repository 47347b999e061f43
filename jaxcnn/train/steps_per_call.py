"""Chooses the number of steps in one call of the compiled program. This number never changes a bit of the results."""

from jaxcnn.config import ConfigError

AUTOMATIC = 256  # most steps in one call, if jaxcnn chooses several
CALL_SECONDS = 1.0  # target for one call: two are in flight at once, and a signal waits for both


def choose_steps_per_call(requested: int, loader: str, platform: str) -> tuple[int, str]:
    """The most steps in one call, and the reason in a few words.

    If jaxcnn chooses (0), accelerators with the resident loader get many steps: there a step may take less time than
    Python needs to start it. CPUs get one step: Python's part is about a millisecond, near the noise even for networks
    of a quarter of the width (`benchmarks.calls`), and a signal then waits for one step only.

    Raises:
      ConfigError: several are requested, but the batches come from the host.
    """
    if loader == "stream":
        if requested > 1:
            raise ConfigError(
                f"config.run.steps_per_call={requested} needs the resident loader, but the batches of this set are "
                "streamed; set it to 0 or 1, or raise config.data.resident_gib"
            )
        return 1, "batches come from the host"
    if requested:
        return requested, "as configured"
    return (1, "on a CPU") if platform == "cpu" else (AUTOMATIC, "the resident loader on an accelerator")


class StepsPerCall:
    """Limits calls to about `CALL_SECONDS`, from the times of the previous calls.

    Attributes:
      most: the most steps in one call.
      allowed: steps in the next call; 1 at first, and at most doubled by each measurement.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.allowed = 1

    def measured(self, steps: int, seconds: float) -> None:
        """Record that a call of `steps` steps took `seconds`."""
        fitting = int(CALL_SECONDS * steps / max(seconds, 1e-9))
        self.allowed = max(1, min(fitting, 2 * self.allowed, self.most))
