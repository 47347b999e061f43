"""The page of `--format=web` for detectors in a real browser: boxes as those of Python, in pixels of each image."""

import io
import os

import numpy as np
import pytest
from PIL import Image

from jaxcnn.data.source import open_splits
from jaxcnn.deploy import web
from jaxcnn.train import predict, trained
from tests import digits, runs, small
from tests.services import test_web_browser
from tests.services.test_web_browser import ACTING, ANSWER, acting, script, text_of

pytestmark = [pytest.mark.services, pytest.mark.unoptimised]
served = test_web_browser.served
PAD = {"source": "shapes:32:48", "val_examples": 8, "image_size": 32, "resize": "pad"}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A detector, and the folder of its page."""
    folder = tmp_path_factory.mktemp("web")
    groups = {
        "global_batch_size": 8,
        "model": {"name": "yolo_cnn", "width": 1 / 32},
        "task": {"name": "detection", "most_boxes": 4, "most_found": 20},
        "data": PAD,
        "optim": {"name": "adamw", "learning_rate": 0.01},
        "run": {"steps": 4, "tensorboard": False, "curves": False, "log_every_steps": 1},
        "parallel": {"devices": 1},
    }
    digits.run(folder / "run", **groups)
    cache = {"JAXCNN_CACHE": os.path.expanduser("~/.cache/jaxcnn-tests/web")}
    flags = (f"--workdir={folder}/run", "--format=web", f"--out={folder}/page")
    code, output = runs.run(*flags, module="jaxcnn.export", **cache)
    if "could not be fetched by npm" in output or "there is no npm" in output:
        pytest.skip(output.splitlines()[-1])
    assert code == 0, output
    with small.programs_kept():
        network, _ = trained.load(folder / "run", "last", "", 1)
    return network, folder / "page", folder / "run"


@pytest.fixture(scope="module")
def pictures(page, tmp_path_factory):
    """Files of images of several sizes and shapes, one of them turned by its EXIF data, and Python's answers."""
    network, _, _ = page
    folder = tmp_path_factory.mktemp("pictures")
    split = open_splits(network.config.data, network.config.task).test
    paths = []
    for number, pixels in enumerate(split.read(np.arange(8))):
        wide = np.concatenate([pixels, pixels[:, ::-1]], axis=1) if number % 2 else pixels
        image = Image.fromarray(wide).resize((20 + 37 * number, 90 - 9 * number), Image.Resampling.BICUBIC)
        options = {}
        if number == 5:
            options["exif"] = Image.Exif()
            options["exif"][0x0112] = 6
        file = io.BytesIO()
        image.save(file, "PNG", **options)
        paths.append(folder / f"{number}.png")
        paths[-1].write_bytes(file.getvalue())
    return paths, predict.predict(network, paths, skip_unreadable=False)


def test_boxes_are_those_of_python_in_pixels_of_images_of_any_size(served, pictures):
    server, browse = served
    paths, results = pictures
    script(server, ANSWER, [text_of(path.read_bytes()) for path in paths])
    told = sorted(browse("check.html?on=wasm")["told"], key=lambda each: each["id"])
    assert sum(len(result["boxes"]) for result in results) > 40
    for reply, result, path in zip(told, results, paths, strict=True):
        found, wanted = reply["result"]["boxes"], result["boxes"]
        assert len(found) == len(wanted)
        width, height = reply["result"]["sides"]
        with Image.open(path) as image:
            assert (width, height) == (image.size[::-1] if path.stem == "5" else image.size)
        for one in wanted:  # scores that are equal but for rounding may change places
            assert any(
                other["label"] == one["label"]
                and abs(other["score"] - one["score"]) < 1e-5
                and np.abs(np.array(other["box"]) - one["bbox"]).max() < 1e-3 * max(width, height)
                for other in found
            ), (path, one)


def test_a_person_sees_boxes_over_the_image_from_a_score_on_or_by_the_thresholds_of_validation(served, page, pictures):
    server, browse = served
    network, folder, _ = page
    (path, *_), (result, *_) = pictures
    server.given["one.png"] = path.read_bytes()
    acting_script = (
        ACTING.partition("if (sessionStorage")[0]
        + """
    const at = (score, own) => {
      get("own").checked = own;
      get("least").value = score;
      get("least").oninput();
      return [document.querySelectorAll("#over rect:not(.dark)").length, get("count").textContent, answers().length];
    };
    get("file").files = carrying(await given("one.png")).files;
    await answered(() => get("file").dispatchEvent(new Event("change")));
    const seen = { first: get("least").value, all: at(1, false), none: at(100, false), own: at(50, true) };
    at(1, false);
    const over = get("over").getBoundingClientRect(), image = get("shown").getBoundingClientRect();
    seen.beside = Math.max(...["left", "top", "width", "height"].map((side) => Math.abs(over[side] - image[side])));
    seen.wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
    seen.choice = [get("choice").hidden, get("chosen").hidden];
    const broken = carrying(file("no", "no.png"));
    seen.broken = await answered(() => document.dispatchEvent(new DragEvent("drop", { dataTransfer: broken })));
    seen.gone = get("over").hasAttribute("hidden");
    await tell(seen);
    """
    )
    acting(server, (folder / "index.html").read_text(), acting_script)
    seen = browse("acting.html?on=wasm", "--window-size=500,900")  # Chromium's least width
    facts = web._of_boxes(network)
    scores = [each["score"] for each in result["boxes"]]
    own = [each["score"] >= facts["thresholds"][each["category_id"] - 1] for each in result["boxes"]]
    assert seen["first"] == "30" and facts["least"] == 0.3
    number = sum(score >= 0.01 for score in scores)
    assert seen["all"][0] == seen["all"][2] == number > 0 and seen["all"][1] != "nothing"
    assert seen["none"] == [0, "nothing", 0] and seen["own"][0] == sum(own)
    assert seen["beside"] < 1 and seen["wide"] == 0 and seen["choice"] == [False, False]
    assert seen["broken"] == [] and seen["gone"]
