"""`make release` builds the same bytes twice, and its hashes and bill of materials are of these files and the lock."""

import hashlib
import json
import re
import subprocess

import pytest

pytestmark = pytest.mark.services


def test_a_release_is_built_twice_to_one_hash_with_its_bill_of_materials(root):
    done = subprocess.run(["make", "release"], cwd=root, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the same files from two builds" in done.stdout
    folder = root / "build" / "release"
    sums = dict(line.split()[::-1] for line in (folder / "SHA256SUMS").read_text().splitlines())
    assert sorted(name.rpartition(".")[2] for name in sums) == ["gz", "json", "whl"]
    for name, digest in sums.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    (bill,) = folder.glob("*.cdx.json")
    listed = {each["name"] for each in json.loads(bill.read_text())["components"]}
    locked = set(re.findall(r"^([\w.-]+)==", (root / "requirements.lock").read_text(), re.MULTILINE))
    assert locked <= listed
