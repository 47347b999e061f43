"""Files that are written completely or not at all: no reader sees half a file, and no crash leaves one."""

import errno
import os
import pathlib


def write(path: pathlib.Path, content: str | bytes | bytearray) -> None:
    """Write a file under another name, then rename it; text in UTF-8. Several processes may write one path.

    Raises:
      OSError: the file cannot be written; the old content is unchanged. ESTALE: its folder is gone.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        part.replace(path)
    except FileNotFoundError:
        if path.parent.is_dir():
            raise
        raise OSError(errno.ESTALE, "its folder is gone", str(path)) from None
    except BaseException:
        part.unlink(missing_ok=True)
        raise
