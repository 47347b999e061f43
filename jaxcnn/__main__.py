"""List the commands: `python -m jaxcnn`."""

import ast
import os
import pathlib
import sys

COMMANDS = (  # in the order in which most people meet them
    *("main", "doctor", "preview", "find_rate", "summary", "sweep", "report", "explain", "robustness"),
    *("compress", "export", "latency", "serve", "scaling", "launch", "cache"),
)


def listing() -> str:
    """Each command with the first sentence of its module, which is not imported."""
    width = max(map(len, COMMANDS))
    lines = [f"  python -m jaxcnn.{name:<{width}}  {_sentence(name)}" for name in COMMANDS]
    return "\n".join(["Commands, each with --help:", "", *lines, "", "From Python: import jaxcnn; help(jaxcnn)"])


def _sentence(name: str) -> str:
    folder = pathlib.Path(__file__).parent
    path = folder / name / "__main__.py"
    told = ast.get_docstring(ast.parse((path if path.exists() else folder / f"{name}.py").read_bytes())) or ""
    first, _, _ = told.partition("\n")[0].partition(":")
    return first.removesuffix(".")


if __name__ == "__main__":
    if wrong := [each for each in sys.argv[1:] if each not in ("--help", "-h")]:
        name = wrong[0] if wrong[0] in COMMANDS else "main"
        print(
            f"jaxcnn: type python -m jaxcnn.{name}, with a dot, not {wrong[0]!r:.100}; python -m jaxcnn lists all "
            "commands",
            file=sys.stderr,
        )
        sys.exit(2)
    try:
        print(listing(), flush=True)
    except OSError as error:  # not by `jaxcnn.command.output`: this command imports nothing
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush when Python exits
        if not isinstance(error, BrokenPipeError):  # as in `python -m jaxcnn | head -1`
            print(f"jaxcnn: some of the output could not be written: {error.strerror}", file=sys.stderr)
