"""ONNX Runtime for the browser: the files of the npm package onnxruntime-web that a page needs, each with its SHA-256.

They are of one release, so the page is written for what it has and tested with it. The browser loads a pair of them:
that of WebAssembly, or that of WebGPU, which is larger.
"""

import contextlib
import hashlib
import pathlib
import shutil
import subprocess
import tarfile
import tempfile

from jaxcnn.config import UserError
from jaxcnn.machine import whole_files
from jaxcnn.machine.paths import cache_folder, expand
from jaxcnn.text import shown

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
ARCHIVE = f"{PACKAGE}-{VERSION}.tgz"
FILES = {  # of its folder dist
    "ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
    "ort-wasm-simd-threaded.mjs": "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    "ort.webgpu.min.mjs": "3dffff71811bc13a3a3d9591c57ca5ee5735b8f5f3eaf789510b02bb040ae3a0",
    "ort-wasm-simd-threaded.asyncify.mjs": "3d1c85995364bb643302fc6fd877a0c3ba5ae72401815e0f24828a53d9191e28",
    "ort-wasm-simd-threaded.asyncify.wasm": "39f9f0894d478800487ed9f7dbe92618498db320cf55c8e3d89adff8dce658da",
}
MOST_SECONDS = 600.0  # of npm


def read(given: str = "") -> dict[str, bytes]:
    """The contents of `FILES`.

    Args:
      given: the package as npm gives it, a folder or a .tgz; "": that of the cache, where npm puts it the first time.

    Raises:
      UserError: one is missing or another than that of the release, or npm could not fetch it.
    """
    if not given:
        return _kept()
    path = expand(given, "--runtime=")
    return _checked(_unpacked(path), f"--runtime={shown(given)}")


def _kept() -> dict[str, bytes]:
    path = cache_folder() / ARCHIVE
    if path.exists():
        with contextlib.suppress(UserError):  # a damaged file of the cache is fetched again
            return _checked(_unpacked(path), str(path))
    with tempfile.TemporaryDirectory() as place:
        archive = _fetched(pathlib.Path(place))
        found = _checked(_unpacked(archive), f"{ARCHIVE} from npm")
        with contextlib.suppress(OSError):  # it is fetched again next time
            path.parent.mkdir(parents=True, exist_ok=True)
            whole_files.write(path, archive.read_bytes())
    return found


def _fetched(folder: pathlib.Path) -> pathlib.Path:
    """The archive, fetched by npm, which knows the registry and the proxy of its user."""
    npm = shutil.which("npm")
    if npm is None:
        raise UserError(f"--format=web needs {PACKAGE} {VERSION}, and there is no npm to fetch it; {_OFFLINE}")
    command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--ignore-scripts", f"--pack-destination={folder}"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=MOST_SECONDS)
        why = " ".join(done.stderr.split())[:120] if done.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        why = type(error).__name__
    if why or not (folder / ARCHIVE).exists():
        raise UserError(f"{PACKAGE} {VERSION} could not be fetched by npm ({shown(why)}); {_OFFLINE}")
    return folder / ARCHIVE


_OFFLINE = (
    f"where there is a network, run: npm pack {PACKAGE}@{VERSION}, then give --runtime={ARCHIVE}, or the folder of an "
    f"installed one (node_modules/{PACKAGE})"
)


def _unpacked(path: pathlib.Path) -> dict[str, bytes]:
    """The files there are of `FILES`, by name."""
    found: dict[str, bytes] = {}
    try:
        if path.is_dir():
            for name in FILES:
                for file in (path / name, path / "dist" / name, path / "package" / "dist" / name):
                    if file.is_file():
                        found.setdefault(name, file.read_bytes())
            return found
        with tarfile.open(path) as archive:
            for member in archive:
                name = member.name.removeprefix("package/dist/")
                if name in FILES and member.isfile() and (content := archive.extractfile(member)):
                    found[name] = content.read()
    except (OSError, tarfile.TarError, EOFError) as error:
        why = getattr(error, "strerror", None) or "it is no whole .tgz"
        raise UserError(f"--runtime={shown(str(path))} cannot be read: {why}; {_OFFLINE}") from error
    return found


def _checked(found: dict[str, bytes], where: str) -> dict[str, bytes]:
    for name, digest in FILES.items():
        if name not in found:
            raise UserError(f"{where} has no {name}; {_OFFLINE}")
        if hashlib.sha256(found[name]).hexdigest() != digest:
            raise UserError(f"{where}: {name} is not that of {PACKAGE} {VERSION}, by its SHA-256; {_OFFLINE}")
    return found
