"""The pages of the server in a real browser: images of a form, boxes and masks drawn, and the description, offline."""

import asyncio
import json
import subprocess
import threading

import numpy as np
import pytest
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from jaxcnn.serve import app as serve_app
from jaxcnn.serve import connections
from jaxcnn.serve.receive import Limits
from jaxcnn.tasks import run_length
from tests.services.test_report_browser import CHROMIUM, FLAGS
from tests.test_serve_many import Named, listening

pytestmark = pytest.mark.services

ACTING = """
<script type="module">
  const until = (test) => new Promise((resolve) => {
    const timer = setInterval(() => { if (test()) { clearInterval(timer); resolve(); } }, 20);
  });
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [40, 20];
  const blob = await new Promise((resolve) => canvas.toBlob(resolve));
  const files = ["<b>.png", "b.png"].map((name) => new File([blob], name, { type: "image/png" }));
  await until(() => get("model").options.length === 2);
  const seen = { title: [get("title").textContent], hidden: get("choice").hidden };
  window.prompt = () => "secret";
  await show(files);
  seen.words = [...document.querySelectorAll("pre")].map((each) => each.textContent);
  get("model").value = "boxes";
  get("model").onchange();
  seen.title.push(get("title").textContent);
  await show(files.slice(0, 1));
  await until(() => document.querySelector(".picture canvas"));
  const drawn = document.querySelector(".picture canvas"), pen = drawn.getContext("2d");
  seen.found = document.querySelector("pre").textContent;
  seen.size = [drawn.width, drawn.height];
  seen.alpha = [[2, 10], [30, 15], [39, 1]].map(([x, y]) => pen.getImageData(x, y, 1, 1).data[3]);
  seen.inside = document.querySelectorAll("pre *").length;
  seen.wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  const page = document.createElement("iframe");
  page.src = "docs";
  document.body.append(page);
  await until(() => page.contentDocument?.querySelectorAll("section").length > 8);
  seen.paths = [...page.contentDocument.querySelectorAll("h2 code")].map((each) => each.textContent);
  const loaded = [performance, page.contentWindow.performance].flatMap((each) => each.getEntriesByType("resource"));
  const own = (name) => /^(blob|data):/.test(name) || name.startsWith(location.origin);
  seen.elsewhere = loaded.map((each) => each.name).filter((name) => !own(name));
  await fetch("told", { method: "POST", body: JSON.stringify(seen) });
</script>
"""


class Boxes(Named):
    """Finds an object on the left half, one with a mask at the bottom right, and one that it is not sure of."""

    def answers(self, images):
        mask = np.zeros((20, 40), np.uint8)
        mask[12:18, 25:35] = 1
        found = [
            {"label": "<i>cat", "category_id": 1, "score": 0.9, "bbox": [2.0, 2.0, 15.0, 16.0]},
            {"label": "dog", "category_id": 2, "score": 0.8, "bbox": [25.0, 12.0, 10.0, 6.0]},
            {"label": "cow", "category_id": 3, "score": 0.1, "bbox": [30.0, 0.0, 9.0, 9.0]},
        ]
        found[1]["segmentation"] = run_length.encode(mask)
        return [{"boxes": found}] * len(images)

    def facts(self):
        return super().facts() | {"model": "yolo"}


class Classes(Named):
    def answers(self, images):
        return [{"top": [{"label": f"<b>{number}", "probability": 0.5}]} for number in range(len(images))]


def test_a_person_gives_images_to_two_networks_and_reads_the_interface(tmp_path):
    assert CHROMIUM, "make test-services installs Chromium"
    told, heard = {}, threading.Event()

    async def hear(request):
        told.update(json.loads(await request.body()))
        heard.set()
        return Response()

    async def acting(request):
        return HTMLResponse((serve_app._HERE / "page.html").read_text() + ACTING)

    async def work():
        limits = Limits(body=20_000, seconds=5.0, requests=8, wait=0.0, token="secret")
        interface = serve_app.Interface({"classes": Classes("classes"), "boxes": Boxes("boxes")}, limits)
        made = interface.app()
        made.router.routes += [Route("/acting", acting), Route("/told", hear, methods=["POST"])]
        async with interface._lifespan(made), listening(made, connections.protocol(5.0, most=99)) as (port, _):
            address = f"http://127.0.0.1:{port}/acting"
            command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path}/profile", "--remote-debugging-port=0"]
            browser = subprocess.Popen(
                [*command, "--window-size=500,900", address], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            try:
                assert await asyncio.to_thread(heard.wait, 120)
            finally:
                browser.kill()
                browser.wait()

    asyncio.run(work())
    assert told["title"] == ["cnn, step 1", "yolo, step 1"] and not told["hidden"]
    assert told["words"] == [" 50.0 %  <b>0", " 50.0 %  <b>1"]  # one request for both
    assert told["found"] == " 90.0 %  <i>cat\n 80.0 %  dog" and told["inside"] == told["wide"] == 0
    assert told["size"] == [40, 20]
    edge, inside, outside = told["alpha"]
    assert edge > 100 and inside > 100 and outside == 0
    assert "/models/{name}/predict" in told["paths"] and told["elsewhere"] == []
