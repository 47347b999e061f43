"""The page of predictions: outlines are exact, everything is within one file, and names are shown and never obeyed."""

import html.parser
import re

import numpy as np
import pytest

from jaxcnn.config import Task
from jaxcnn.tasks import by_name, run_length
from jaxcnn.tasks.marks import Mark, Marking, outline
from jaxcnn.train import predictions_page
from jaxcnn.train.predictions_page import Item

EVIL = "<script>alert('\"&')</script>"


def filled(path, height, width):
    """The pixels inside a path by the rule "evenodd": those with an odd number of its vertical lines to their left."""
    crossed = np.zeros((height, width + 1), int)
    x = y = 0
    for command, numbers in re.findall(r"([Mhvz])([-\d ]*)", path):
        if command == "M":
            x, y = start = tuple(map(int, numbers.split()))
        elif command == "h":
            x += int(numbers)
        else:  # a path is closed by a vertical line
            end = y + int(numbers) if command == "v" else start[1]
            assert command == "v" or x == start[0]
            crossed[min(y, end) : max(y, end), x] += 1
            y = end
    return np.cumsum(crossed, axis=1)[:, :width] % 2 == 1


def test_marks_down_to_the_threshold_of_their_class_are_there_if_validation_chose_one():
    marks = [Mark(name, number, "", score) for name, number in (("a", 0), ("b", 1)) for score in (0.04, 0.03, 0.02)]
    items = [Item("one", np.zeros((4, 4, 3), np.uint8), "", [Mark("a", 0, "", 0.7), *marks])]
    plain = predictions_page.page("", [], items, ("a", "b"), 0.3)
    assert plain.count("<g class") == 1 and 'id="own"' not in plain and "data-least" not in plain
    own = predictions_page.page("", [], items, ("a", "b"), 0.3, (0.5, np.float32(0.03)))
    assert own.count("<g class") == 3 and 'id="own"' in own
    assert re.findall(r'data-least="([^"]*)" title="([^"]*)"', own) == [
        ("0.5000", "threshold of validation: 50 %"),
        ("0.0300", "threshold of validation: 3 %"),
    ]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_an_outline_holds_just_the_pixels_of_its_mask(share):
    random = np.random.default_rng(0)
    for height, width in ((1, 1), (5, 7), (16, 9), (40, 40)):
        mask = random.random((height, width)) < share
        path = outline(mask)
        assert np.array_equal(filled(path, height, width), mask)
        assert (path == "") == (not mask.any())
    ring = np.zeros((20, 20), bool)
    ring[2:18, 3:17] = True
    ring[6:12, 8:12] = False
    assert outline(ring) == "M3 2h14v16h-14zM8 6h4v6h-4z"


class Read(html.parser.HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)

    def of(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


def test_marks_of_a_page_have_class_score_and_place_and_names_are_never_obeyed():
    image = np.zeros((400, 1440, 3), np.uint8)  # shown at half its size
    mask = np.zeros((400, 1440), np.uint8)
    mask[100:200, 200:400] = 1
    marks = [
        Mark(EVIL, 0, "90.0 %", 0.9, (200, 100, 200, 100), run_length.encode(mask)),
        Mark("b", 2, "20.0 %", 0.2, (0, 0, 10, 10)),
        Mark("b", 2, "1.0 %", 0.01, (0, 0, 10, 10)),
    ]
    items = [Item(EVIL, image, EVIL, marks), Item("broken", None, "it is no image")]
    page = predictions_page.page(EVIL, [EVIL], items, (EVIL, "never found", "b"), 0.3)
    read = Read(page)
    assert len(read.of("script")) == 1 and "never found" not in page
    assert "".join(read.text).count(EVIL) == 8  # title twice, about, button, name, answer, mark twice
    groups = read.of("g")
    assert [(each["data-class"], each["data-score"], each["class"]) for each in groups] == [
        ("0", "0.9000", "c0"),
        ("1", "0.2000", "c1 off"),
    ]
    assert read.of("path")[0]["d"] == "M100 50h100v50h-100z"
    (rect,) = [each for each in read.of("rect") if each.get("x") == "100" and "class" not in each]
    assert (rect["y"], rect["width"], rect["height"]) == ("50", "100", "50")
    assert "viewbox" in {name.lower() for each in read.of("svg") for name in each} and 'viewBox="0 0 720 200"' in page
    assert all(each["src"].startswith("data:image/jpeg;base64,") for each in read.of("img"))
    assert "http" not in page.replace("http-equiv", "")
    assert "it is no image" in "".join(read.text)


def test_a_page_of_classes_has_bars_and_one_of_numbers_has_words():
    small = np.zeros((8, 8, 3), np.uint8)
    answers = [
        {"label": "cat", "probability": 0.75, "top": [{"label": "cat", "probability": 0.75}]},
        {"labels": [], "probabilities": {"cat": 0.25, "dog": 0.4, "cow": 0.1, "ant": 0.0}},
        {"values": {"height": 2.0}},
    ]
    likely = [predictions_page.likely(answer) for answer in answers]
    assert likely == [[("cat", 0.75)], [("dog", 0.4), ("cat", 0.25), ("cow", 0.1)], []]
    items = [Item(str(k), small, "words", likely=of) for k, of in enumerate(likely)]
    page = predictions_page.page("run", [], items, ("ant", "cat", "cow", "dog"), 0.3)
    read = Read(page)
    cards = read.of("article")
    assert [(card.get("data-class"), card["data-sure"]) for card in cards] == [
        ("0", "0.7500"),
        ("1", "0.4000"),
        (None, "0.0000"),
    ]
    assert [each["style"] for each in read.of("i")] == ["width: 75.0%", "width: 40.0%", "width: 25.0%", "width: 10.0%"]
    assert 'value="0"' in page and "data:image/png" in page and page.count('class="answer"') == 1
    none = predictions_page.page("run", [], [Item("a", small, "2", likely=())], ("height",), 0.3)
    assert 'id="least"' not in none and 'id="order"' not in none
    assert predictions_page.remarks(300, 200, 1) == [
        "It has the first 200 of 300 images.",
        "1 image could not be read.",
    ]


def test_tasks_that_find_something_give_marks_in_stored_pixels():
    boxes = by_name.make(Task(name="detection"), 2).evaluation
    regions = by_name.make(Task(name="segmentation"), 3).evaluation
    assert isinstance(boxes, Marking) and isinstance(regions, Marking)
    assert not isinstance(by_name.make(Task(), 2).evaluation, Marking)
    (mark,) = boxes.marks({"boxes": [{"label": "a", "category_id": 2, "score": 0.5, "bbox": [1, 2, 3, 4]}]})
    assert (mark.number, mark.told, mark.mask) == (1, "50.0 %", None)
    found = np.zeros((1, 4, 4), np.uint8)
    found[0, :2] = 2
    answer = regions.answers(found, ("sky", "sea", "land"), None, {})[0]
    marks = regions.marks(answer)
    assert {(mark.name, mark.told, mark.quiet) for mark in marks} == {
        ("sky", "50.0 % of the image", True),
        ("land", "50.0 % of the image", False),
    }
