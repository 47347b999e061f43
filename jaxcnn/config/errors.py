"""Errors of the user or the machine, reported in one line without a traceback."""


class UserError(Exception):
    """An error of the user or the machine: says what happened, where, and what to do; shown without a traceback.

    Attributes:
      exit_code: exit code of the command that it ends.
    """

    exit_code = 2

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows: one line, as commands do."""
        return [f"{type(self).__name__}: {self}"]


class ConfigError(UserError):
    """The configuration contains mistakes; `str` has one line for each."""
