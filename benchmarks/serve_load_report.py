"""The page of `benchmarks.serve_load`."""

from typing import Any

from benchmarks.report import describe, figure, table

SECTION = "serving"


def markdown(record: dict[str, Any]) -> str:
    """The tables of all runs, as Markdown."""
    parts = ["## Images over HTTP", describe(record), _how(record)]
    for run in record["runs"]:
        parts += [f"### {run['name']}", *_of_run(run)]
    return "\n\n".join(parts)


def _how(record: dict[str, Any]) -> str:
    client = {"wrk": "`wrk`, one thread", "own": "a client in Python"}[record["client"]]
    return (
        f"One PNG image in a request, asked again as soon as it is answered, for {record['seconds']:g} s, by {client}, "
        "on the same cores as the server. p50 to p99 are from the request to the answer; server ms is the time of the "
        "processors that the server takes for an image, which other work on the machine changes little."
    )


def _of_run(run: dict[str, Any]) -> list[str]:
    size = " x ".join(map(str, run["image_shape"]))
    ways = list(run["load"])
    figures = ("images/s", "p50 ms", "p95 ms", "p99 ms", "server ms")
    header = ["connections", *(f"{way}: {what}" for way in ways for what in figures)]
    rows = []
    for connections in run["load"][ways[0]]:
        row = [str(connections)]
        for way in ways:
            found = run["load"][way][connections]
            row.append(figure(found["answered"] / found["seconds"]))
            row += [figure(1000 * found[name]) for name in ("p50", "p95", "p99")]
            row.append(figure(1000 * found["server_seconds"] / max(1, found["answered"])))
        rows.append(row)
    losses = sum(found[name] for way in run["load"].values() for found in way.values() for name in ("others", "broken"))
    others = sorted(found["other_work"] for way in run["load"].values() for found in way.values())
    told = (
        f"{run['model']} for images of {size}. {losses} requests had neither an answer nor a refusal. Other work took "
        f"{100 * others[0]:.0f}% to {100 * others[-1]:.0f}% of the processors meanwhile."
    )
    return [told, table(header, rows), _too_much(run["too_much"]), *_mixture(run)]


def _megabytes(size: float) -> str:
    return f"{size / 1e6:,.0f}"


def _too_much(found: dict[str, Any]) -> str:
    codes = {int(code): count for code, count in found["codes"].items()}
    answered, refused = codes.pop(200, 0), codes.pop(429, 0)
    others = ", ".join(f"{code or 'no reply'}: {count}" for code, count in sorted(codes.items())) or "none"
    seconds = found["seconds"]
    before, most, after = map(_megabytes, found["memory"])
    return (
        f"**Ten times the capacity.** {found['connections']} connections, where {found['places']} images are admitted, "
        f"asked for {seconds:.0f} s: {answered:,} answers ({figure(answered / seconds)} per second, p99 "
        f"{figure(1000 * found['p99'])} ms), {refused:,} refusals by 429 ({figure(refused / seconds)} per second), "
        f"other replies: {others}. Wrong answers: {found['wrong']}. Most images under way at once: {found['largest']}. "
        f"Resident memory: {before} MB before, at most {most}, {after} after. The client is ours, in Python, and does "
        "not wait after a refusal."
    )


def _mixture(run: dict[str, Any]) -> list[str]:
    found = run["mixture"]
    rows = []
    for name, case in found["cases"].items():
        codes = {int(code): count for code, count in case["codes"].items()}
        rows.append(
            [
                name,
                f"{sum(codes.values()):,}",
                ", ".join(f"{code or 'none'}: {count:,}" for code, count in sorted(codes.items())),
                str(case["wrong"]),
            ]
        )
    told = sum(case["told"] for case in found["cases"].values())
    memory = ", ".join(map(_megabytes, found["memory"]))
    text = (
        f"**Requests of every kind.** {found['requests']:,} in turns on 8 connections, in {found['seconds']:.0f} s. "
        f"Resident memory in MB, before and after each fifth: {memory}. Replies with a traceback or a path: {told}; "
        f"tracebacks in the output of the server: {run['tracebacks']}. Exit code after SIGTERM: {run['exit_code']}."
    )
    return [text, table(["request", "number", "replies by code", "wrong answers"], rows, figures={1, 3})]
