"""The page of predictions in a real browser: scores, classes, orders, both themes, a phone's width, and no request."""

import numpy as np
import pytest

from jaxcnn.tasks import run_length
from jaxcnn.tasks.marks import Mark
from jaxcnn.train import predictions_page
from jaxcnn.train.predictions_page import Item
from tests.services.test_report_browser import seen_by, widths_on_a_phone

pytestmark = pytest.mark.services

ACTIONS = """
addEventListener("load", () => {
  const names = () => [...document.querySelectorAll(".card:not([hidden]) h3")].map((each) => each.textContent);
  const seen_of = (each) => each.getBoundingClientRect().width > 0;
  const marks = () => [...document.querySelectorAll("g")].filter(seen_of).length;
  const choose = (id, value, kind = "change") => {
    const field = document.getElementById(id);
    field.value = value;
    field.dispatchEvent(new Event(kind));
  };
  const press = (place) => document.querySelectorAll("#classes button")[place].click();
  const seen = { all: names(), marks: marks(), said: document.querySelector(".answer").textContent };
  choose("least", "10", "input"); seen.low = marks(); seen.at = document.getElementById("at").textContent;
  const own = (on) => { document.getElementById("own").checked = on; choose("own", "on"); };
  own(true); seen.own = [marks(), document.getElementById("at").textContent, document.getElementById("least").disabled];
  own(false); seen.again = [marks(), document.getElementById("at").textContent];
  choose("order", "many"); seen.many = names();
  choose("order", "least"); seen.least = names();
  choose("order", ""); choose("least", "30", "input");
  press(1); seen.second = names(); seen.of_second = marks(); seen.count = document.getElementById("count").textContent;
  press(1);
  document.querySelector("g path").dispatchEvent(new MouseEvent("click", { bubbles: true }));
  seen.told = document.querySelector(".said").textContent;
  const box = document.querySelector("g rect:not(.dark)").getBoundingClientRect();
  const view = document.querySelector(".view").getBoundingClientRect();
  seen.place = [(box.left - view.left) / view.width, (box.right - view.left) / view.width].map((of) => of.toFixed(2));
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
    random = np.random.default_rng(0)
    mask = np.zeros((100, 200), np.uint8)
    mask[20:60, 50:100] = 1

    def item(name, *marks):
        return Item(name, random.integers(0, 255, (100, 200, 3)).astype(np.uint8), "words", marks)

    one = Mark("cell", 0, "90.0 %", 0.9, (50, 20, 50, 40), run_length.encode(mask))
    two = Mark("dust", 1, "50.0 %", 0.5, (120, 10, 30, 30))
    three = Mark("cell", 0, "20.0 %", 0.2, (10, 70, 20, 20))
    items = [item("first_" * 20, one), item("second", two, three), item("third")]
    return predictions_page.page("A run with a long name " * 3, ["3 images"], items, ("cell", "dust"), 0.3, (0.2, 0.6))


def test_scores_classes_and_orders_are_chosen_in_the_browser(tmp_path):
    seen = seen_by(ACTIONS, made(), tmp_path)
    first = "first_" * 20
    assert seen["all"] == [first, "second", "third"] and seen["marks"] == 2 and seen["said"] == "1 cell"
    assert seen["low"] == 3 and seen["at"] == "10 %"
    assert seen["own"] == [2, "each", True] and seen["again"] == [3, "10 %"]  # both cells, and no dust
    assert seen["many"] == ["second", first, "third"] and seen["least"] == ["third", "second", first]
    assert seen["second"] == ["second"] and seen["of_second"] == 1 and seen["count"] == "1 of 3 images"
    assert seen["told"] == "cell 90.0 %" and seen["place"] == ["0.25", "0.50"]
    assert seen["before"] != seen["after"] and seen["loaded"] == [] and not seen["wide"]


def test_on_a_phone_the_page_is_as_wide_as_the_screen(tmp_path):
    assert widths_on_a_phone(made(), tmp_path) == "360 360"
