"""How long each test takes: `make durations` measures them anew, `pytest --quick` leaves out the slow ones.

    python -m tests.durations durations.xml    write tests/durations.json from a report of pytest, and show the slowest

The figures are of a first run on two cores, with nothing compiled yet; of tests added since, of a repeated run; of
tests made cheaper since, seconds of the processors of a first run. Tests below `LISTED` seconds are not listed. A
module without any other is listed itself, by its name: what is of a module that is not in the file was never measured,
and counts as slow. The report also has the seconds that each test took of the processors, which are shown: other work
on the machine makes those of the clock longer, and hardly these.
"""

import collections
import json
import pathlib
import sys
import xml.etree.ElementTree as ElementTree

import pytest

FILE = pathlib.Path(__file__).parent / "durations.json"
LISTED = 0.3
QUICK = 1.0  # seconds; slower tests are left out by --quick


def read_report(path: pathlib.Path) -> dict[str, tuple[float, float]]:
    """Seconds of each test, and those of the processors, its fixtures among them, by pytest's name of it.

    Tests that were skipped have none.
    """
    found = {}
    for case in ElementTree.parse(path).iter("testcase"):
        processor = [each.attrib["value"] for each in case.iter("property") if each.attrib["name"] == "processor"]
        name = f"{case.attrib['classname'].replace('.', '/')}.py::{case.attrib['name']}"
        if processor:
            found[name] = float(case.attrib["time"]), float(processor[0])
    return found


def module_of(name: str) -> str:
    """The file of a test, by pytest's name of it."""
    return name.partition("::")[0]


def listed(report: dict[str, tuple[float, float]]) -> dict[str, float]:
    """What is written of a report: seconds of its longer tests, and 0.0 of each module that has none."""
    found = {name: round(took, 1) for name, (took, _) in report.items() if took >= LISTED}
    found |= dict.fromkeys({module_of(name) for name in report} - {module_of(name) for name in found}, 0.0)
    return dict(sorted(found.items()))


def slow_of(items: list[pytest.Item]) -> list[pytest.Item]:
    """The slow tests: those known to be, and those that share a fixture with one, which would pay for it instead.

    And those of modules that were never measured.
    """
    known = json.loads(FILE.read_text()) if FILE.exists() else {}
    measured = {module_of(name) for name in known}
    slow = [
        item
        for item in items
        if known.get(item.nodeid, 0.0) >= QUICK or (measured and module_of(item.nodeid) not in measured)
    ]
    dear = {name for item in slow for name in shared_fixtures(item)}
    return [item for item in items if item in slow or dear & set(shared_fixtures(item))]


def longest_first(items: list[pytest.Item]) -> list[pytest.Item]:
    """The tests, the modules that take longest first, so that at the end no worker waits long for another."""
    known = json.loads(FILE.read_text()) if FILE.exists() else {}
    modules = collections.Counter[str]()
    for name, took in known.items():
        modules[module_of(name)] += took
    return sorted(items, key=lambda item: -modules[module_of(item.nodeid)])


def shared_fixtures(item: pytest.Item) -> list[tuple[str, str]]:
    """The fixtures of a test's module that are made once for it."""
    found = item._fixtureinfo.name2fixturedefs  # type: ignore[attr-defined]
    module = module_of(item.nodeid)
    return [(module, name) for name, each in found.items() if (each[-1].scope, each[-1].baseid) == ("module", module)]


def main() -> None:
    """Write the file; show where the time goes."""
    report = read_report(pathlib.Path(sys.argv[1]))
    FILE.write_text(json.dumps(listed(report), indent=0) + "\n")
    modules = collections.Counter[str]()
    for name, (_, processor) in report.items():
        modules[module_of(name)] += processor
    whole, processors = (sum(each) for each in zip(*report.values(), strict=True))
    print(f"{len(report)} tests, {whole:.0f} s in all workers together, {processors:.0f} s of processors; by module:")
    for name, processor in modules.most_common(25):
        print(f"  {processor:6.1f} s  {name}")
    print("the dearest tests:")
    for name, (_, processor) in sorted(report.items(), key=lambda item: -item[1][1])[:40]:
        print(f"  {processor:6.1f} s  {name}")


if __name__ == "__main__":
    main()
