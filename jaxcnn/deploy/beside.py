"""A file with its facts and its SHA-256 in <file>.json beside it, by which a damaged one is refused.

The facts have a SHA-256 of their own. Their text must be the one that was written, to the byte.
"""

import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from jaxcnn.config import UserError
from jaxcnn.machine import json_text, whole_files
from jaxcnn.text import shown
from jaxcnn.train import workdir

OF_FACTS = "sha256_of_facts"  # the fact that is the SHA-256 of all others


def write(path: pathlib.Path, content: bytes, facts: Mapping[str, str]) -> None:
    """Write a file and its facts, which are JSON texts.

    Raises:
      UserError: it cannot be written.
    """
    try:
        whole_files.write(path, content)
        seal(path, _beside(path), facts)
    except OSError as error:
        raise UserError(f"{shown(str(path))} cannot be written: {error.strerror}") from error


def seal(path: pathlib.Path, facts_file: pathlib.Path, facts: Mapping[str, str]) -> None:
    """Write the facts of a file that is there, with its SHA-256. Raises OSError."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    told = {name: json_text.parse_or_keep(value) for name, value in facts.items()} | {"sha256": digest}
    workdir.write_json(facts_file, told | {OF_FACTS: _digest_of(told)})


def read(path: pathlib.Path, facts_file: pathlib.Path | None = None) -> tuple[bytes, dict[str, Any]]:
    """The bytes of a file, and its facts.

    Raises:
      UserError: it cannot be read, or is not the file that was written with its facts.
    """
    facts_file = facts_file or _beside(path)
    try:
        content, text = path.read_bytes(), facts_file.read_bytes().decode("utf-8")  # line ends as they are
        facts = json_text.parse(text)
    except OSError as error:
        raise UserError(f"{shown(str(error.filename))} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{shown(str(facts_file))} is damaged; export the run again") from error
    if not isinstance(facts, dict) or facts.get("sha256") != hashlib.sha256(content).hexdigest():
        raise UserError(f"{shown(str(path))} is not the file that {facts_file.name} tells of; export the run again")
    is_as_written = workdir.as_json(facts) == text
    if facts.pop(OF_FACTS, None) != _digest_of(facts) or not is_as_written:
        raise UserError(f"{shown(str(facts_file))} is damaged or was changed; export the run again")
    return content, facts


def _digest_of(facts: Mapping[str, Any]) -> str:
    """The SHA-256 of facts."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _beside(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(f"{path.name}.json")
