"""The page of explanations in a real browser: filter, order, opacity, both themes, a phone's width, and no request."""

import json
import re

import numpy as np
import pytest

from jaxcnn.explain import page
from tests.services.test_report_browser import browse

pytestmark = pytest.mark.services

ACTIONS = """
addEventListener("load", () => {
  const names = () => [...document.querySelectorAll(".card:not([hidden]) h3")].map((each) => each.textContent);
  const choose = (id, value, kind = "change") => {
    const field = document.getElementById(id);
    field.value = value;
    field.dispatchEvent(new Event(kind));
  };
  const seen = { all: names() };
  choose("order", "least"); seen.least = names();
  choose("order", "most"); seen.most = names();
  choose("kind", "wrong"); seen.wrong = names();
  choose("kind", ""); choose("class", "1"); seen.second = names();
  seen.count = document.getElementById("count").textContent;
  choose("opacity", "20", "input");
  seen.opacity = getComputedStyle(document.querySelector(".view img")).opacity;
  const ground = () => getComputedStyle(document.body).backgroundColor;
  seen.before = ground();
  document.getElementById("theme").click();
  seen.after = ground();
  seen.loaded = performance.getEntriesByType("resource").map((each) => each.name);
  seen.loaded = seen.loaded.filter((name) => !name.startsWith("data:"));
  seen.wide = document.documentElement.scrollWidth > document.documentElement.clientWidth;
  document.body.dataset.seen = JSON.stringify(seen);
});
"""


def made() -> str:
    generator = np.random.default_rng(0)

    def item(name, right, confidence, classes):
        image = generator.integers(0, 255, (8, 8, 3)).astype(np.uint8)
        maps = {each: generator.standard_normal((8, 8)) for each in ("gradcam", "integrated_gradients", "occlusion")}
        return page.Item(name, image, "cat 51.0%", "cat", "dog", right, confidence, classes, maps)

    items = [item("a", True, 0.9, (0,)), item("b", False, 0.5, (0, 1)), item("c", True, 0.7, (1,))]
    return page.page("A run with a long name " * 3, ["3 images"], items, ["cat", "dog"])


def test_images_are_filtered_and_ordered_and_the_opacity_changes(tmp_path):
    acting = tmp_path / "page.html"
    acting.write_text(made().replace("</body>", f"<script>{ACTIONS}</script></body>"))
    dom = browse(f"file://{acting}?theme=light", tmp_path / "profile", "--window-size=1280,900", "--dump-dom")
    found = re.search(r'data-seen="([^"]*)"', dom)
    assert found
    seen = json.loads(found[1].replace("&quot;", '"'))
    assert seen["all"] == ["a", "b", "c"] and seen["least"] == ["b", "c", "a"] and seen["most"] == ["a", "c", "b"]
    assert seen["wrong"] == ["b"] and seen["second"] == ["c", "b"] and seen["count"] == "2 of 3"
    assert seen["opacity"] == "0.2" and seen["before"] != seen["after"]
    assert seen["loaded"] == [] and not seen["wide"]


def test_on_a_phone_the_page_is_as_wide_as_the_screen(tmp_path):
    acting = tmp_path / "phone.html"
    script = """
    addEventListener("load", () => setTimeout(() => {
      const inner = document.querySelector("iframe").contentDocument.documentElement;
      document.body.dataset.seen = `${inner.clientWidth} ${inner.scrollWidth}`;
    }, 500));
    """
    frame = made().replace("&", "&amp;").replace('"', "&quot;")
    acting.write_text(
        f'<!doctype html><body><iframe width="390" height="800" style="border:0" srcdoc="{frame}"></iframe>'
        f"<script>{script}</script></body>"
    )
    dom = browse(f"file://{acting}", tmp_path / "profile", "--virtual-time-budget=3000", "--dump-dom")
    assert 'data-seen="390 390"' in dom
