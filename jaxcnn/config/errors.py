"""Mistakes of the user's or of the machine, told in one line without a traceback."""


class UserError(Exception):
    """A mistake of the user's or of the machine: what happened, where, what to do; no traceback.

    Attributes:
      exit_code: of the command that it ends.
    """

    exit_code = 2


class ConfigError(UserError):
    """The configuration holds mistakes; `str` has one line for each of them."""
