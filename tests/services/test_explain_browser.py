"""The page of explanations in a real browser: search, filter, opacity, both themes, a phone's width, no request."""

import numpy as np
import pytest

from jaxcnn.explain import page
from tests.services.test_report_browser import screenshot, seen_by, widths_on_a_phone

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
  choose("class", "");
  const search = (words) => { choose("search", words, "input"); return names(); };
  seen.dogs = search(" DO"); seen.none = search("all"); seen.cats = search("cat");
  choose("kind", "wrong"); seen.both = names(); choose("kind", ""); seen.again = search("");
  seen.proposed = [...document.getElementById("search").list.options].map((each) => each.value);
  document.getElementById("search").focus(); seen.focus = document.activeElement.id;
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
    assert seen["dogs"] == ["c", "b"] and seen["none"] == [] and seen["cats"] == ["a", "b"], "in the order chosen above"
    assert seen["both"] == ["b"] and seen["again"] == ["a", "c", "b"]
    assert seen["proposed"] == ["cat", "dog"] and seen["focus"] == "search"
    assert seen["opacity"] == "0.2" and seen["before"] != seen["after"]
    assert seen["loaded"] == [] and not seen["wide"]


def test_on_a_phone_the_page_is_as_wide_as_the_screen(tmp_path):
    assert widths_on_a_phone(made(), tmp_path) == "360 360"


@pytest.mark.parametrize(("theme", "low", "high"), [("light", 230, 256), ("dark", 0, 40)])
def test_each_theme_is_drawn_in_its_colours(theme, low, high, tmp_path):
    (tmp_path / "index.html").write_text(made())
    pixels = screenshot(tmp_path / "index.html", tmp_path, 1280, theme).reshape(-1, 3)
    ground = np.median(pixels, axis=0)
    assert (ground >= low).all() and (ground < high).all()
    assert len(np.unique(pixels, axis=0)) > 100  # words and maps in it
