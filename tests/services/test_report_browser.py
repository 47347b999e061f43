"""The report's page in a real browser: both themes, a phone's width, sorting and filtering, and not one request."""

import json
import pathlib
import re
import shutil
import subprocess
import time

import numpy as np
import pytest
from PIL import Image

import jaxcnn
from jaxcnn.explain import confused
from jaxcnn.reporting import explained, plots, write
from jaxcnn.reporting import page as pages
from jaxcnn.reporting.findings import find
from jaxcnn.reporting.read import read
from tests import report_folders as folders
from tests.services import phone

pytestmark = pytest.mark.services
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip

# Sorts the table of all settings by clicking, filters the one of all runs, and leaves what it saw in the title.
ACTIONS = """
addEventListener("load", () => {
  const rows = (name) => [...document.querySelectorAll(`#table-${name} tbody tr`)];
  const heads = [...document.querySelectorAll("#table-settings th")];
  const column = heads.findIndex((head) => head.textContent.startsWith("learning rate"));
  const rates = () => rows("settings").map((row) => row.cells[column].textContent);
  const seen = { first: rates() };
  heads[column].querySelector("button").click();
  seen.falling = rates();
  seen.sort = heads[column].getAttribute("aria-sort");
  heads[column].querySelector("button").click();
  seen.rising = rates();
  heads[column].querySelector("button").click();
  seen.again = rates();
  const input = document.querySelector("#table-runs .filter input");
  input.value = "DIVERGED 9";
  input.dispatchEvent(new Event("input"));
  seen.shown = rows("runs").filter((row) => !row.hidden).length;
  seen.count = document.querySelector("#table-runs output").textContent;
  const ink = () => getComputedStyle(document.body).backgroundColor;
  seen.before = ink();
  document.getElementById("theme").click();
  seen.after = ink();
  seen.wide = document.documentElement.scrollWidth > document.documentElement.clientWidth;
  seen.loaded = performance.getEntriesByType("resource").map((entry) => entry.name);
  document.body.dataset.seen = JSON.stringify(seen);
});
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    base = tmp_path_factory.mktemp("report")
    folders.write_sweep(base / "sweep")
    write.report([base / "sweep"], base / "out", command="python -m jaxcnn.report …")
    return base / "out" / "report.html"


def browse(page, profile, *flags: str) -> str:
    """What Chromium writes to standard output."""
    assert CHROMIUM, "make test-services installs Chromium"
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", *flags]
    done = subprocess.run([*command, page], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def seen_by(actions: str, page: str, folder) -> dict:
    """What the script `actions` leaves as JSON in `data-seen` of a page, on a screen of 1280 x 900."""
    acting = folder / "page.html"
    acting.write_text(page.replace("</body>", f"<script>{actions}</script></body>"))
    dom = browse(f"file://{acting}?theme=light", folder / "profile", "--window-size=1280,900", "--dump-dom")
    found = re.search(r'data-seen="([^"]*)"', dom)
    assert found
    return json.loads(found[1].replace("&quot;", '"'))


def widths_on_a_phone(page: str, folder) -> str:
    """The width of a phone's screen and that of the page on it, such as "360 360"."""
    (folder / "phone.html").write_text(page)
    return phone.widths([CHROMIUM, *FLAGS, f"--user-data-dir={folder}/profile"], folder / "phone.html")


def screenshot(page, folder, width: int, theme: str) -> np.ndarray:
    """Pixels [H, W, 3] of the top of the page."""
    picture = folder / "page.png"
    size = f"--window-size={width},1600"
    browse(f"file://{page}?theme={theme}", folder / "profile", size, f"--screenshot={picture}")
    return np.asarray(Image.open(picture).convert("RGB"))


@pytest.mark.parametrize(("theme", "low", "high"), [("light", 230, 256), ("dark", 0, 40)])
def test_each_theme_is_drawn_in_its_colours(theme, low, high, page, tmp_path):
    pixels = screenshot(page, tmp_path, 1280, theme)
    assert pixels.shape[:2] == (1600, 1280)
    ground = np.median(pixels.reshape(-1, 3), axis=0)
    assert (ground >= low).all()
    assert (ground < high).all()
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100  # words and pictures in it


def test_tables_sort_and_filter_and_the_theme_turns(page, tmp_path):
    acting = page.with_name("acting.html")
    acting.write_text(page.read_text().replace("</body>", f"<script>{ACTIONS}</script></body>"))
    dom = browse(f"file://{acting}?theme=light", tmp_path / "profile", "--window-size=1280,900", "--dump-dom")
    found = re.search(r'data-seen="([^"]*)"', dom)
    assert found
    seen = json.loads(found[1].replace("&quot;", '"'))
    rates = [float(rate) for rate in seen["first"]]
    assert [float(rate) for rate in seen["falling"]] == sorted(rates, reverse=True)
    assert seen["sort"] == "descending"
    assert [float(rate) for rate in seen["rising"]] == sorted(rates)
    assert seen["again"] == seen["first"]
    assert (seen["shown"], seen["count"]) == (1, "1 of 11")
    assert seen["before"] != seen["after"]
    assert not seen["wide"]
    assert seen["loaded"] == []


def test_on_a_phone_nothing_but_tables_is_wider_than_the_screen(page, tmp_path):
    assert widths_on_a_phone(page.read_text(), tmp_path) == "360 360"


@pytest.mark.parametrize("place", ["serve/page.html", "serve/docs.html", "deploy/page/index.html"])
def test_the_pages_that_answer_fit_a_phone(place, tmp_path):
    source = pathlib.Path(jaxcnn.__file__).parent / place
    assert phone.widths([CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path}/profile"], source) == "360 360"


def test_what_is_wider_than_a_phone_is_seen(tmp_path):
    page = '<meta name="viewport" content="width=device-width"><div style="width: 361px; height: 1px"></div>'
    assert widths_on_a_phone(f"<!doctype html><style>body {{ margin: 0 }}</style>{page}", tmp_path) == "360 361"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_confused_pairs_fit_a_phone_and_their_maps_lie_on_the_images(theme, page, tmp_path):
    image, ramp = np.full((8, 8, 3), 200, np.uint8), np.arange(64.0).reshape(8, 8)
    mistakes = [
        confused.Mistake(f"a very long name of a file {k}.png" * 3, image, 0.9, 0.1, ramp, -ramp) for k in (1, 2)
    ]
    names = ("a class of the longest name that anyone has given", "cat")
    grid = explained._grid(confused.Pair(0, 1, 7, 10, mistakes), names, "integrated_gradients")
    plot = plots.Plot("pair", explained.SECTION, "a pair", "how to read it", None)
    text = pages.render("a run", find(read([page.parents[1] / "sweep"])), {}, [(plot, grid)], [], "a command")
    script = """
    const view = document.querySelectorAll(".view")[1], map = view.querySelector("img");
    const same = JSON.stringify(view.getBoundingClientRect()) === JSON.stringify(map.getBoundingClientRect());
    const root = document.documentElement;
    document.body.dataset.seen = `${same} ${map.naturalWidth} ${root.scrollWidth - root.clientWidth}`;
    """
    (tmp_path / "pairs.html").write_text(
        text.replace("</body>", f"<script>onload = () => {{{script}}}</script></body>")
    )
    size = "--window-size=500,900"  # Chromium's least width
    dom = browse(f"file://{tmp_path}/pairs.html?theme={theme}", tmp_path / "profile", size, "--dump-dom")
    assert 'data-seen="true 8 0"' in dom


def test_the_page_prints(page, tmp_path):
    target = tmp_path / "page.pdf"
    began = time.time()
    browse(f"file://{page}?theme=dark", tmp_path / "profile", f"--print-to-pdf={target}")
    assert target.read_bytes().startswith(b"%PDF")
    assert target.stat().st_mtime >= began - 2
