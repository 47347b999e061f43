"""How many steps one call of the compiled program makes. How steps are cut into calls never changes a bit of a run."""

from jaxcnn.config import ConfigError

AUTOMATIC = 256  # steps in one call at most, where jaxcnn chooses to have several
CALL_SECONDS = 1.0  # aim for one call: two are under way at once, and a signal waits for both


def choose_steps_per_call(requested: int, loader: str, platform: str) -> tuple[int, str]:
    """The most steps in one call, and why in a few words.

    Left to jaxcnn (0), accelerators with the resident loader get many: there a step may take less time than Python
    needs to start it. CPUs get one: Python's part is about a millisecond, near the noise even in networks
    of a quarter of the width (`benchmarks.calls`), and one step is all that a signal waits for.

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
    """Cuts calls to about `CALL_SECONDS`, by the time of the calls before.

    Attributes:
      most: steps in one call.
      allowed: steps in the next call; 1 at first, and at most doubled by each measurement.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.allowed = 1

    def measured(self, steps: int, seconds: float) -> None:
        """Take in that a call of so many steps took so long."""
        fitting = int(CALL_SECONDS * steps / max(seconds, 1e-9))
        self.allowed = max(1, min(fitting, 2 * self.allowed, self.most))
