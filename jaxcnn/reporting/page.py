"""The page of a report: one HTML file that contains its style, script and pictures, and needs no network."""

import datetime
import pathlib
import re
from typing import TYPE_CHECKING, Any

from jaxcnn.reporting import labels, provenance
from jaxcnn.reporting.findings import Family, Findings
from jaxcnn.reporting.plots import Plot
from jaxcnn.reporting.read import COMPLETE, REPEATED, Sweep
from jaxcnn.reporting.settings import sample_noun
from jaxcnn.reporting.tables import Table

if TYPE_CHECKING:
    from markupsafe import Markup

TEMPLATES = pathlib.Path(__file__).parent / "templates"

# Sections of the page in order: name, title, its tables (a name, or the beginning of a name followed by *).
SECTIONS = (
    ("results", "Results", ("results",)),
    ("settings", "Settings", ("settings", "figures-*", "comparisons")),
    ("effects", "What each choice does", ()),
    ("curves", "Training curves", ()),
    ("times", "Time and size", ("time-to-accuracy", "pareto", "sizes", "latency")),
    ("scaling", "Speed over devices", ("scaling-*",)),
    ("confusion", "Classes", ("classes-*",)),
    ("confused", "Confused pairs", ("confused-*",)),
    ("groups", "Groups", ("groups-*",)),
    ("missing", "What is missing", ("troubles", "unfinished", "missing")),
    ("published", "Published figures", ("published",)),
    ("made-with", "How it was made", ("configs", "environments")),
    ("runs", "All runs", ("runs",)),
)


def render(
    title: str,
    findings: Findings,
    tables: dict[str, Table],
    pictures: list[tuple[Plot, str]],
    cautions: list[str],
    command: str,
) -> str:
    """The page; `pictures` are pairs of a plot and its SVG for the page."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters["in_words"] = _in_words
    sections = []
    for name, heading, wanted in SECTIONS:
        there = [t for pattern in wanted for t in tables.values() if _fits(t.name, pattern)]
        drawn = [(plot, svg) for plot, svg in pictures if plot.section == name]
        if there or drawn:
            narrow = sum(not svg.startswith("<img") for _, svg in drawn)  # images have the whole width
            sections.append({"name": name, "title": heading, "tables": there, "pictures": drawn, "narrow": narrow})
    return environment.get_template("page.html.jinja").render(
        title=title,
        summary=_summary(findings),
        cards=[_card(family) for family in findings.families],
        cautions=cautions,
        sections=sections,
        commands=provenance.commands(findings.material.runs, findings.material.sweeps),
        sweeps=[_sweep(sweep) for sweep in findings.material.sweeps],
        made_by=command,
        date=f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        style=(TEMPLATES / "page.css").read_text(encoding="utf-8"),
        script=(TEMPLATES / "page.js").read_text(encoding="utf-8"),
    )


def _in_words(line: str) -> "Markup":
    """A command in HTML; a narrow screen breaks it between its words, not after the hyphens of a flag."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"\S+", r'<span class="word">\g<0></span>', str(escape(line))))


def _fits(name: str, pattern: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def _summary(findings: Findings) -> str:
    runs = [run for run in findings.material.runs if run.state != REPEATED]
    finished = sum(run.state == COMPLETE for run in runs)
    parts = [labels.count(finished, "finished run") + (f" of {len(runs)}" if finished < len(runs) else "")]
    parts.append(labels.count(len(findings.settings), "setting"))
    parts.append(labels.count(len({f.architecture for f in findings.families}), "network"))
    parts.append(", ".join(dict.fromkeys(f.dataset for f in findings.families)))
    return " · ".join(part for part in parts if part)


def _card(family: Family) -> dict[str, Any]:
    """The main figure of a family, and its basis."""
    chosen = family.chosen
    card: dict[str, Any] = {"title": family.architecture, "data": family.dataset, "why": family.why, "figure": ""}
    if chosen is None:
        return card
    of, split = (chosen.test, "test") if chosen.test else (chosen.validation, "validation")
    if of is None:
        return card
    figure, _, spread = labels.percent_spread(of).partition(" ± ")
    card |= {"figure": figure, "unit": labels.unit(of.headline), "spread": f"± {spread}" if spread else ""}
    seeds = labels.seeds(of.n, of.n + len(chosen.finished) - len(chosen.seeds), sample_noun(chosen))
    card["split"] = f"{split} {of.headline.label}, {seeds}" + ("" if of.n > 1 else ": no spread known")
    card["setting"] = chosen.described
    facts = []
    if chosen.test and chosen.validation:
        facts.append(f"validation {labels.percent_spread(chosen.validation)}{labels.unit(of.headline)}")
    if chosen.augmented_test:
        facts.append(f"test with TTA {labels.percent_spread(chosen.augmented_test)}{labels.unit(of.headline)}")
    if family.paper is not None:
        facts.append(f"Ashraf et al. {100 * family.paper:.1f} %")
    if chosen.train_seconds:
        facts.append(f"{labels.seconds_spread(chosen.train_seconds)} of training")
    card["facts"] = facts
    return card


def _sweep(sweep: Sweep) -> dict[str, Any]:
    facts, begun = sweep.facts, sum(run.trial is not None for run in sweep.runs)
    planned, wanted = facts.get("planned"), facts.get("trials")
    total = f" of {len(planned)} planned" if planned else f" of {wanted}, drawn one after the other" if wanted else ""
    told = {
        "config": facts.get("config_file"),
        "varied": ", ".join(facts.get("varied") or []),
        "sampler": facts.get("sampler"),
        "trials": f"{begun} begun{total}",
        "created": facts.get("created"),
    }
    return {"name": sweep.name, "facts": {key: str(value) for key, value in told.items() if value}}
