"""The page of explanations in a real browser: filter, order, opacity, both themes, a phone's width, and no request."""

import numpy as np
import pytest

from jaxcnn.explain import page
from tests.services.test_report_browser import seen_by, widths_on_a_phone

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
        names = ("gradcam", "integrated_gradients", "occlusion")
        maps = {each: generator.integers(0, 255, (8, 8)).astype(np.uint8) for each in names}
        return page.Item(name, image, "cat 51.0%", "cat", "dog", right, confidence, classes, maps)

    items = [item("a", True, 0.9, (0,)), item("b", False, 0.5, (0, 1)), item("c", True, 0.7, (1,))]
    return page.page("A run with a long name " * 3, ["3 images"], items, ["cat", "dog"])


def test_images_are_filtered_and_ordered_and_the_opacity_changes(tmp_path):
    seen = seen_by(ACTIONS, made(), tmp_path)
    assert seen["all"] == ["a", "b", "c"] and seen["least"] == ["b", "c", "a"] and seen["most"] == ["a", "c", "b"]
    assert seen["wrong"] == ["b"] and seen["second"] == ["c", "b"] and seen["count"] == "2 of 3"
    assert seen["opacity"] == "0.2" and seen["before"] != seen["after"]
    assert seen["loaded"] == [] and not seen["wide"]


def test_on_a_phone_the_page_is_as_wide_as_the_screen(tmp_path):
    assert widths_on_a_phone(made(), tmp_path) == "360 360"
