"""Warnings that a reader needs in order to judge a report's figures."""

from jaxcnn.reporting import labels, provenance
from jaxcnn.reporting.contents import ON_TEST, machine_letters
from jaxcnn.reporting.findings import Family, Findings
from jaxcnn.reporting.read import REPEATED


def cautions(findings: Findings) -> list[str]:
    """The warnings as sentences, the most important first; empty without any."""
    said = _incomplete(findings)
    if evolved := sum(run.evolved for run in findings.material.runs):
        runs = labels.count(evolved, "run of population-based training", "runs of population-based training")
        said.append(
            f"{runs} continued from the weights and rates of other runs: each is listed under its initial rates, and "
            "is excluded from all effects, grids and tests of significance."
        )
    if repeated := [s for s in findings.settings if len(s.finished) > len(s.seeds)]:
        differ = sum(s.repeats_differ for s in repeated)
        said.append(
            f"{labels.count(len(repeated), 'setting has', 'settings have')} seeds that were run more than once: each "
            "counts as one seed, with the mean of its runs."
            + (
                f" In {differ} of them the results of such runs differ, because sums are rounded differently."
                * bool(differ)
            )
        )
    if folds := sorted({run.config["data.folds"] for run in findings.material.runs if run.config.get("data.folds")}):
        said.append(
            f"Runs of {', '.join(map(str, folds))}-fold cross-validation: means and spreads are over the folds, each "
            "pair of a seed and a fold being one. All folds share one test split."
        )
    if findings.best_on_test:
        said.append(f"Rows marked “best on test” are {ON_TEST}.")
    for family in findings.families:
        said += _of_choice(family) + _of_comparability(family)
    full = [s for s in findings.settings if s.protocol == "full" and s.finished]
    if full:
        names = ", ".join(dict.fromkeys(f"{s.architecture} on {s.dataset}" for s in full))
        said.append(
            f"{labels.count(len(full), 'setting')} ({names}) trained with protocol=full: nothing was held out, so no "
            "decision could be based on validation."
        )
    if len(machines := machine_letters(findings)) > 1:
        said.append(
            f"Runs come from {len(machines)} different machines; their times and speeds are not comparable with each "
            "other, and are compared within one machine only."
        )
    if provenance.overlapping(findings.material.runs):
        said.append("Trials ran at the same time on one machine: their times include the load of each other.")
    if members := provenance.in_populations(findings.material.runs):
        said.append(
            f"{labels.count(members, 'trial was', 'trials were')} trained in a population: the training time of each "
            "is an equal share of the total."
        )
    without = sum(not run.whole_config for run in findings.material.runs)
    if without:
        said.append(
            f"{labels.count(without, 'run has', 'runs have')} no config.json: its content is taken from summary.json "
            "and trial.json."
        )
    return said


def _incomplete(findings: Findings) -> list[str]:
    material = findings.material
    said = [f"{note}." for note in material.notes]
    said += [f"sweep {sweep.name}: {note}." for sweep in material.sweeps for note in sweep.notes]
    if findings.missing:
        count = labels.count(len(findings.missing), "planned trial has", "planned trials have")
        said.append(f"{count} not started.")
    for sweep in material.sweeps:
        if sweep.undrawn:
            total = int(sweep.facts["trials"])
            said.append(f"{total - sweep.undrawn} of {total} trials of the search {sweep.name} have been drawn.")
    if repeats := sum(run.state == REPEATED for run in material.runs):
        count = labels.count(repeats, "trial of a search repeats", "trials of a search repeat")
        said.append(f"{count} an earlier one, and so {'was' if repeats == 1 else 'were'} neither trained nor counted.")
    if findings.unfinished:
        count = labels.count(len(findings.unfinished), "run has", "runs have")
        said.append(f"{count} not finished, and no figure includes any such run.")
    if findings.troubles:
        kinds: dict[str, int] = {}
        for run in findings.troubles:
            kinds[run.state] = kinds.get(run.state, 0) + 1
        told = ", ".join(f"{number} {state}" for state, number in kinds.items())
        said.append(f"{labels.count(len(findings.troubles), 'trial')} gave no result: {told}.")
    partial = [s for s in findings.settings if s.finished and s.lost_seeds]
    if partial:
        said.append(
            f"{labels.count(len(partial), 'setting')} lost some of the seeds: means include only the finished ones, "
            "and so may be too good."
        )
    return said


def _of_choice(family: Family) -> list[str]:
    place = f"{family.architecture} on {family.dataset}"
    if family.chosen is None:
        return [f"{place}: {family.why}."]
    said = []
    if len(family.chosen.seeds) == 1:
        runs = len(family.chosen.finished)
        told = "one seed only" if runs == 1 else labels.seeds(1, runs)
        said.append(f"{place}: {told}, so no spread is known.")
    if family.runner_up:
        other, outcome = family.runner_up
        if outcome.verdict in ("unknown", "within the spread", "not significant", "equal"):
            verb = "show" if outcome.verdict == "equal" else "are"
            said.append(
                f"{place}: on validation, the chosen setting ({family.chosen.label}) and the second ({other.label}) "
                f"{verb} {outcome.words()}."
            )
    return said


def _of_comparability(family: Family) -> list[str]:
    """Reasons why a family's figures cannot be compared with the published ones."""
    if family.paper is None and not family.published:
        return []
    config = (family.chosen or family.settings[0]).config
    differs = []
    if config.get("model.channels"):
        differs.append("some layers of the network have other channels")
    if config.get("model.width", 1.0) != 1:
        differs.append(f"the network has {labels.fraction(config['model.width'])} of the full width")
    if config.get("data.test_split", "test") != "test":
        differs.append(f"only {config['data.test_split']} is tested")
    if config.get("data.train_split", "train") != "train":
        differs.append(f"only {config['data.train_split']} is trained on")
    place = f"{family.architecture} on {family.dataset}"
    return [f"{place} is not comparable with the published runs: {'; '.join(differs)}."] if differs else []
