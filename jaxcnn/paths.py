"""Paths as people write them, who expect `~` to be a home folder wherever a path may stand."""

import pathlib

from jaxcnn.config import UserError


def expand(path: str | pathlib.Path, named: str = "") -> pathlib.Path:
    """A path with `~` and `~user` at its beginning replaced by that home folder; `named` says where it was given.

    Raises:
      UserError: it is not known where that home is.
    """
    try:
        return pathlib.Path(path).expanduser()
    except RuntimeError as error:
        tilde = pathlib.Path(path).parts[0]
        raise UserError(
            f"{named}{path}: there is no home folder {tilde!r} (HOME is not set, or there is no such user); write the "
            "path out, or ./~ for a folder of that name"
        ) from error
