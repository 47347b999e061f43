"""optuna-dashboard opens the store of a sweep."""

import json
import subprocess
import sys
import time
import urllib.request

import pytest

from jaxcnn.study import spec
from tests import studies
from tests.servers import free_port
from tests.services.conftest import answers

pytestmark = pytest.mark.services


def test_the_dashboard_shows_the_study_with_its_trials(tmp_path):
    pytest.importorskip("optuna_dashboard", reason="the extra [dashboard] is not installed")
    study = studies.make(tmp_path, spec.sweep(spec.values("optim.learning_rate", [0.1, 0.2])))
    queue = study.queue()
    assert queue.finish(queue.take(), "complete", {"val_accuracy": 0.5}, None)
    port = free_port()
    code = "from optuna_dashboard._cli import main; main()"
    command = [sys.executable, "-c", code, study.url, "--host=127.0.0.1", f"--port={port}"]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while not answers(port):
            assert server.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        (summary,) = get(port, "/api/studies")["study_summaries"]
        assert summary["study_name"] == study.definition.study
        trials = get(port, f"/api/studies/{summary['study_id']}")["trials"]
        assert [trial["state"] for trial in trials] == ["Complete", "Waiting"]
        assert trials[0]["values"] == [0.5]
    finally:
        server.terminate()
        server.wait(timeout=30)


def get(port, path):
    """The JSON at a path of the server."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
        return json.load(answer)
