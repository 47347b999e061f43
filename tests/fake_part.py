"""A part of a campaign, in a moment: `python -m tests.fake_part <folder> <what to do>`; and a campaign of such parts.

With the folder of a campaign alone, runs the campaign of `parts`, as `benchmarks.campaign` runs its own.
"""

import json
import os
import pathlib
import signal
import sys
import time

MACHINE = {
    "device_kind": "cpu", "backend": "cpu", "device": "cpu", "devices": 1, "cores": 2, "processor": "one", "gpus": [],
    "platform": "Linux", "python": "3", "packages": {"jax": "0"}, "commit": "c", "xla_flags": "",
}  # fmt: skip


def parts(*doing):
    from benchmarks.campaign_plan import Part

    return tuple(
        Part(f"p{number}", f"Part {number}", ("tests.fake_part", "{folder}", do), "result.json", gpu=False, least=0)
        for number, do in enumerate(doing)
    )


def campaign(
    folder, chosen, minutes=5.0, paths=None, machine=MACHINE, only=(), asked=lambda: False, other_sources=False
):
    """Run a campaign of parts in this process; return it, and what it said."""
    from benchmarks import campaign_page, campaign_run
    from jaxcnn.train.interrupts import Interrupts

    said = []
    folder.mkdir(parents=True, exist_ok=True)
    options = campaign_run.Options(folder, paths or {}, minutes, only, other_sources)
    made = campaign_run.Campaign(
        chosen, options, Interrupts(asked), said.append, lambda campaign: campaign_page.write(campaign, small=True)
    )
    campaign_run.probe = lambda *_: machine
    made.run()
    return made, said


def main(folder: str, do: str = "") -> None:
    place = pathlib.Path(folder)
    if not do:
        campaign(place, parts("write", "wait", "write"))
        return
    with (place / "starts").open("a") as starts:
        print(os.getpid(), file=starts)
    if do == "fail":
        sys.exit("what went wrong")
    if do == "wait" and not (place / "saved").exists():
        signal.signal(signal.SIGTERM, lambda *_: ((place / "saved").touch(), os._exit(75)))
        (place / "waiting").touch()
        time.sleep(60)
    (place / "result.json").write_text('{"half": ' if do == "half" else json.dumps({"made": True}))


if __name__ == "__main__":
    main(*sys.argv[1:])
