"""Finding the prepared files of a TensorFlow Datasets set, and preparing them if they are missing."""

import os
import re
import socket
import threading
import urllib.parse
import urllib.request
from pathlib import Path

import jaxcnn.config as config
from jaxcnn.config import UserError, convert
from jaxcnn.data import cache
from jaxcnn.data.tensorflow import import_tensorflow
from jaxcnn.machine import json_text
from jaxcnn.machine.extras import need
from jaxcnn.machine.paths import expand

_NAME = re.compile(
    r"(?P<name>[A-Za-z]\w*)(?:/(?P<config>(?!\d+\.\d+\.\d+$)[\w.+-]+))?(?:[:/](?P<version>\d+\.\d+\.\d+))?"
)
_CONNECT_SECONDS = 5.0
_OFFLINE = "or train offline with config.data.source= digits, synthetic, npz:<path>, folder:<path> or csv:<path>"


def prepared_set(argument: str, data: config.Data) -> Path:
    """The folder of a set, `<data_dir>/<name>[/<config>]/<version>`; the set is downloaded and prepared if needed.

    The data_dir is `data.dir`, else `$TFDS_DATA_DIR`, else ~/tensorflow_datasets. One process prepares while the others
    wait. The newest version is used.

    Args:
      argument: `name`, `name:version`, `name/config` or `name/config:version`.
      data: only its `dir` is used.

    Raises:
      UserError: unknown set, partly prepared folder, no network, or failed preparation; the message says what to do.
    """
    match = _NAME.fullmatch(argument)
    if not match:
        raise UserError(
            f"config.data.source='tfds:{argument}': write tfds:<name>, with /<config> and :<version> if needed"
        )
    argument = match["name"] + (f"/{match['config']}" if match["config"] else "")
    argument += f":{match['version']}" if match["version"] else ""
    if "://" in data.dir:
        raise UserError(f"config.data.dir={data.dir!r} must be a local folder")
    data_dir = _data_dir(data)
    if folder := _find(data_dir, match):
        return folder
    with cache.lock(data_dir / f".{match['name']}.lock"):
        if folder := _find(data_dir, match):  # another process has prepared it meanwhile
            return folder
        _prepare(argument, data_dir)
    if folder := _find(data_dir, match):
        return folder
    raise UserError(f"tfds:{argument} was prepared, but is not under {data_dir}; {_command(argument, data_dir)}")


def find_prepared(argument: str, data: config.Data) -> Path | None:
    """The folder of a set if it is already prepared; downloads nothing. `argument` as for `prepared_set`."""
    match = _NAME.fullmatch(argument)
    data_dir = _data_dir(data)
    return _find(data_dir, match) if match else None


def _data_dir(data: config.Data) -> Path:
    """The folder of all sets: config.data.dir, else $TFDS_DATA_DIR, else TFDS's own default."""
    folder = data.dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return expand(folder, "config.data.dir=")


def prepare_again(folder: Path) -> str:
    """The end of a message that says how to replace a set whose files are damaged."""
    return f"remove {folder} and run the same command again, or `tfds build`, to prepare it again"


def _find(data_dir: Path, wanted: re.Match) -> Path | None:
    """`<data_dir>/<name>[/<config>]/<version>` of the set on disk, or None."""
    root = data_dir / wanted["name"]
    if wanted["config"]:
        root = root / wanted["config"]
    elif root.is_dir() and not _versions(root):
        configs = sorted(each.name for each in root.iterdir() if each.is_dir() and _versions(each))
        try:
            default = json_text.parse((root / ".config" / "metadata.json").read_text())["default_config_name"]
        except (OSError, ValueError, KeyError, TypeError):
            default = configs[0] if len(configs) == 1 else ""
        root = root / default if default in configs else root
    versions = _versions(root)
    if wanted["version"]:
        versions = [version for version in versions if version == wanted["version"]]
    if not versions:
        return None
    folder = root / versions[-1]
    for name in ("dataset_info.json", "features.json"):
        if not (folder / name).is_file():
            raise UserError(f"{folder} is only partly prepared: {name} is missing; {prepare_again(folder)}")
    return folder


def _versions(root: Path) -> list[str]:
    if not root.is_dir():
        return []
    found = [each.name for each in root.iterdir() if re.fullmatch(r"\d+\.\d+\.\d+", each.name) and each.is_dir()]
    return sorted(found, key=lambda version: [int(part) for part in version.split(".")])


def _command(argument: str, data_dir: Path) -> str:
    return f"prepare it with `tfds build {argument} --data_dir={data_dir}`"


def _prepare(argument: str, data_dir: Path) -> None:
    """Download and prepare a set. Every failure becomes a UserError of one line."""
    need("tfds", f"tfds:{argument} is not under {data_dir}; preparing it")
    try:
        import_tensorflow()
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise UserError(
            f"tfds:{argument} is not under {data_dir} and cannot be prepared without tensorflow_datasets: {error}"
        ) from None
    failed = f"tfds:{argument} is not prepared under {data_dir}"
    try:
        builder = tfds.builder(argument, data_dir=str(data_dir))
    except tfds.core.DatasetNotFoundError:
        name = re.split("[/:]", argument)[0]
        near = convert.nearest_key(name, tfds.list_builders(with_community_datasets=False))
        hint = f"; did you mean tfds:{near}?" if near else ""
        raise UserError(f"{failed}, and TensorFlow Datasets has no set {name!r}{hint}") from None
    except Exception as error:
        raise UserError(f"{failed}: {_first_line(error)}") from None
    hosts = sorted({urllib.parse.urlparse(url).hostname or "" for url in (builder.url_infos or {})} - {""})
    # Files downloaded before or by hand need no network; behind a proxy, reachability cannot be tested directly.
    aside = builder.MANUAL_DOWNLOAD_INSTRUCTIONS or urllib.request.getproxies() or any(data_dir.glob("downloads/*.*"))
    if hosts and not aside and not _any_reachable(hosts):
        raise UserError(
            f"{failed}, and this machine cannot reach {' or '.join(hosts[:2])}; {_command(argument, data_dir)} on a "
            f"machine that can, {_OFFLINE}"
        )
    try:
        builder.download_and_prepare()
    except Exception as error:
        raise UserError(
            f"{failed}, and preparing it failed: {_first_line(error)}; {_command(argument, data_dir)}, {_OFFLINE}"
        ) from None


def _any_reachable(hosts: list[str]) -> bool:
    """Whether one of the hosts answers on the HTTPS or HTTP port within a few seconds."""
    answered = threading.Event()

    def attempt(host: str, port: int) -> None:
        try:
            with socket.create_connection((host, port), timeout=_CONNECT_SECONDS):
                answered.set()
        except OSError:
            pass

    # In separate threads, since looking up a host name has no time limit.
    tries = [threading.Thread(target=attempt, args=(h, p), daemon=True) for h in hosts[:4] for p in (443, 80)]
    for each in tries:
        each.start()
    for each in tries:
        each.join(_CONNECT_SECONDS if not answered.is_set() else 0)
    return answered.is_set()


def _first_line(error: Exception) -> str:
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}"[:300] if text else type(error).__name__
