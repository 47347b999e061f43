"""A page in Chromium on the screen of a phone, which a window cannot be: Chromium's least width is 500 pixels.

Chromium is asked over a pipe (`--remote-debugging-pipe`): texts of JSON that end with a zero byte, as
https://chromedevtools.github.io/devtools-protocol describes them.
"""

import json
import os
import pathlib
import subprocess
from typing import Any

WIDTH = 360  # pixels of CSS: the least width of usual phones
SCREEN = {"width": WIDTH, "height": 780, "deviceScaleFactor": 3, "mobile": True}
WIDTHS = "`${document.documentElement.clientWidth} ${document.documentElement.scrollWidth}`"


class Browser:
    """A running Chromium that is asked over a pipe."""

    def __init__(self, command: list[str]) -> None:
        their_input, self._input = os.pipe()
        self._output, their_output = os.pipe()
        words = ["bash", "-c", f'exec "$@" 3<&{their_input} 4>&{their_output}', "bash"]
        self._process = subprocess.Popen(
            [*words, *command, "--remote-debugging-pipe"],
            pass_fds=(their_input, their_output), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(their_input)
        os.close(their_output)
        self._number, self._rest, self._events = 0, b"", set[str]()

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(30)
        os.close(self._input)
        os.close(self._output)

    def _heard(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = os.read(self._output, 2**16)
            assert part, "Chromium has ended"
            self._rest += part
        text, _, self._rest = self._rest.partition(b"\0")
        return json.loads(text)

    def ask(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        """The result of a method of the protocol."""
        self._number += 1
        request: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        os.write(self._input, json.dumps(request | ({"sessionId": session} if session else {})).encode() + b"\0")
        while (reply := self._heard()).get("id") != self._number:
            self._events.add(reply.get("method", ""))
        assert "error" not in reply, reply
        return reply["result"]

    def wait(self, event: str) -> None:
        """Wait for an event, unless it has come already."""
        while event not in self._events:
            self._events.add(self._heard().get("method", ""))


def widths(command: list[str], page: pathlib.Path) -> str:
    """The width of a phone's screen and that of a page on it, such as "360 360"."""
    with Browser([*command, "about:blank"]) as browser:
        target = browser.ask("Target.createTarget", url="about:blank")["targetId"]
        session = browser.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        browser.ask("Emulation.setDeviceMetricsOverride", session, **SCREEN)
        browser.ask("Page.enable", session)
        browser.ask("Page.navigate", session, url=f"file://{page}")
        browser.wait("Page.loadEventFired")
        return browser.ask("Runtime.evaluate", session, expression=WIDTHS)["result"]["value"]
