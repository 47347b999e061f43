"""The start and end of every command: parsing flags, and exit codes.

Exit codes: 0 done; 1 a bug in jaxcnn, with a traceback; 2 an error in flags, config, data or machine, reported in one
line; 3 the loss or gradient was not finite; 75 stopped by SIGTERM, SIGINT, SIGHUP or SIGUSR1: the same command
continues training from its checkpoint, other commands start again; 128 + n stopped at once by a second SIGTERM or
SIGINT, of signal number n. Output that cannot be written does not change the exit code.
"""

import errno
import functools
import io
import logging
import pathlib
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import absl.logging
from absl import app, flags
from ml_collections import config_flags

from jaxcnn.command import output
from jaxcnn.command.signals import Signals, ignore_at_exit
from jaxcnn.config import (
    Config,
    ConfigError,
    UserError,
    convert,
    flatten,
    from_config_dict,
    nested,
    networks,
    open_names,
    rules_of_tasks,
    to_dict,
)  # fmt: skip
from jaxcnn.machine import malloc, paths, xla_flags
from jaxcnn.train.interrupts import Interrupts

flags.disclaim_key_flags()  # flags defined here belong to the command, and its --help shows them
_NO_BOOLEAN = re.compile(r"\('Non-boolean argument to boolean flag', .*\)")  # absl's error contains its arguments
_HELP = {"--help", "-help", "--helpshort", "-helpshort", "--helpfull", "-helpfull", "--helpxml", "-helpxml"}
NO_MORE_FILES = (errno.EMFILE, errno.ENFILE)
OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.ESTALE)
MACHINE_ERRORS = (*OF_DISKS, *NO_MORE_FILES)

_signals = Signals()


def define_config(description: str) -> Any:
    """Define `--config=<file or name>[:variant]`, whose fields can be overridden by `--config.<key>=<value>`."""
    holder = config_flags.DEFINE_config_file("config", None, description)
    # --help shows the flags of the main module; this flag is defined here, but belongs to the command.
    flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS["config"])
    return holder


class _PathParser(flags.ArgumentParser):
    """A path with `~` expanded, as a string: some flags also take "-" or an empty value."""

    def parse(self, argument: str) -> str:
        try:
            return str(paths.expand(argument)) if argument.startswith("~") else argument
        except UserError as error:
            raise ValueError(str(error)) from None


def define_path(name: str, default: str | None, description: str) -> Any:
    """Define a flag that is a path; must be used for every such flag."""
    return flags.DEFINE(_PathParser(), name, default, description)


def read_config(holder: Any) -> Config:
    """The checked config of a holder from `define_config`.

    Raises:
      UserError: the config is missing or contains mistakes.
    """
    if holder.value is None:
        raise ConfigError("no config was given; give one, for example --config=quickstart")
    try:
        tree = holder.value.to_dict()
    except OSError as error:  # ml_collections delays the error of a file until its value is used
        file = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")[0]
        raise ConfigError(f"--config={file}: this Python file does not exist") from error
    _refuse_replaced_groups(tree)
    given = config_flags.get_override_values(flags.FLAGS["config"])
    if "task.name" in given:
        flat = flatten(tree)
        if lines := rules_of_tasks.left_out(flat, "", given):  # as `jaxcnn.config` does
            tree = nested(flat)
        for line in lines:
            logging.getLogger("jaxcnn").warning(line)
    if mistakes := networks.beside_auto(flatten(tree), given):
        raise ConfigError("\n".join(mistakes))
    config = from_config_dict(tree)
    if any(open_names.foreign(config)):
        from jaxcnn.machine import plugins

        plugins.check(config)
    return config


def run(main: Callable[..., int], *, arguments: bool = False) -> None:
    """Parse the flags, call `main`, and exit with its code; a user error is reported in one line, with exit code 2.

    With `arguments`, arguments that are not flags are passed to `main` as a list; otherwise they are an error.
    """
    if not _HELP & set(sys.argv):  # --help needs no second start
        malloc.use_huge_pages()
    main_module = sys.modules["__main__"]  # --help shows its docstring
    main_module.__doc__ = f"{(main_module.__doc__ or '').rstrip()}\n\n{malloc.HELP}\n"
    malloc.of_command()
    output.keep()
    accept_any_text()
    ignore_at_exit()
    remarks = logging.getLogger("jaxcnn")
    remarks.setLevel(logging.INFO)
    remarks.propagate = False
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("jaxcnn: %(message)s"))
    remarks.addHandler(handler)
    sys.unraisablehook = _without_closed_loops
    with _signals:
        app.run(
            lambda rest: _guarded(functools.partial(main, rest[1:]) if arguments else main),
            flags_parser=functools.partial(_parse, arguments=arguments),
        )


def interrupts() -> Interrupts:
    """The watcher of signals to this command, for its runs."""
    return _signals


def accept_any_text() -> None:
    """Let standard output and error accept any text: characters missing in their encoding are escaped."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def exit_code(error: BaseException) -> int:
    """The exit code of a command that ends with `error`: 1 for a bug."""
    if isinstance(error, UserError):
        return error.exit_code
    of_machine = (isinstance(error, OSError) and error.errno in MACHINE_ERRORS) or (
        isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" in str(error)
    )
    return UserError.exit_code if of_machine else 1


def _without_closed_loops(unraisable: Any) -> None:
    """Hide errors about an event loop that orbax closed at the first error, or that got no file to begin with."""
    if str(unraisable.exc_value) != "Event loop is closed" and "attribute '_ssock'" not in str(unraisable.exc_value):
        sys.__unraisablehook__(unraisable)


def _guarded(main: Callable[[], int]) -> None:
    # absl shows all messages of libraries, and orbax logs every step of a save and each array of a failed one: these
    # need --verbosity, while jaxcnn's own messages are always shown.
    if not flags.FLAGS["verbosity"].present:
        absl.logging.set_verbosity(absl.logging.WARNING)
        for name in ("absl", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    xla_flags.apply()
    try:
        code = main()
        sys.stdout.flush()
        if lost := output.failure():
            _complain(f"some of the output could not be written: {lost.strerror}")
    except UserError as error:
        code = error.exit_code
        _complain(str(error))
    except OSError as error:
        if error.errno not in MACHINE_ERRORS:
            raise
        code = UserError.exit_code
        where = f"{error.filename}: " if error.filename else ""
        advice = "free some space or correct the permissions"
        if error.errno == errno.ESTALE:
            advice = "bring it back"
        elif error.errno in NO_MORE_FILES:
            advice = "allow more of them (ulimit -n)"
        _complain(f"{where}{error.strerror}; {advice}, then run the same command")
    except RuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        code = UserError.exit_code
        _complain(
            f"the device does not have enough memory ({str(error).splitlines()[0][:200]}); lower "
            "config.global_batch_size, or set config.optim.accumulate_steps (with config.norm.group_size)"
        )
    _signals.end(code)
    sys.exit(code)


def _parse(argv: list[str], *, arguments: bool = False) -> list[str]:
    """Parse the flags; every mistake is reported in one line."""
    try:
        argv = [_with_path(argument) for argument in argv]
        _refuse_groups(argv)
        rest = flags.FLAGS(argv)
        if len(rest) > 1 and not arguments:
            raise UserError(f"{rest[1]!r} is not a flag; flags look like --name=value")
        return rest
    except SystemExit:  # absl has shown the requested help, and would exit with 1
        sys.stdout.flush()
        sys.exit(0)
    except (flags.Error, UserError) as error:
        found = _mistake_in_config_file(error, argv)
        before, _, trace = str(error).partition("Traceback")  # ml_collections includes one in its message
        message = found or before + trace.strip().rpartition("\n")[2]
        message = _NO_BOOLEAN.sub("it must be True or False", message)
    except FileNotFoundError as error:
        message = f"config file {error.filename or error} does not exist"
    except OSError as error:  # the error of ml_collections for an override if the config file could not be loaded
        if "Failed loading config file" not in str(error):
            raise
        named = [argument.partition("=")[2] for argument in argv if argument.lstrip("-").startswith("config=")]
        message = f"--config={''.join(named[-1:]).partition(':')[0]}: this Python file does not exist"
    except Exception as error:
        found = _mistake_in_config_file(error, argv)
        if found is None and isinstance(error, AttributeError | KeyError):
            found = _unknown_key(argv)  # the error of ml_collections for an override of an unknown key
        if found is None:
            raise
        message = found
    _complain(" ".join(message.split()))
    sys.exit(UserError.exit_code)


def _with_path(argument: str) -> str:
    """`--config=` with the path of the file: `~` is expanded, and a plain name is searched in the shipped configs.

    Raises:
      ConfigError: no file of that name.
    """
    flag, _, value = argument.partition("=")
    if flag.lstrip("-") != "config" or not flag.startswith("-") or not value:
        return argument
    name, colon, variant = value.partition(":")
    if name.startswith("~"):
        name = str(paths.expand(name, "--config="))
    elif not name.endswith(".py") and not pathlib.Path(name).exists():
        name = str(paths.shipped_config(name))
    return f"{flag}={name}{colon}{variant}"


def _mistake_in_config_file(error: BaseException | None, argv: list[str]) -> str | None:
    """The place and the reason why the Python code of a config file failed, if that caused `error`; else None."""
    found = None
    while error is not None:
        place = None
        if isinstance(error, SyntaxError):
            place, reason = (error.filename, error.lineno), error.msg
        elif not isinstance(error, UserError):
            for frame in traceback.extract_tb(error.__traceback__):
                if any(frame.filename in argument for argument in argv[1:]):
                    place, reason = (frame.filename, frame.lineno), f"{type(error).__name__}: {error}"
        if place is not None:
            found = f"--config={place[0]}: line {place[1]}: {reason}"
        error = error.__cause__ or error.__context__
    return found


def _groups() -> dict[str, list[str]]:
    """The fields of each group of `Config`, by group name."""
    return {name: list(value) for name, value in to_dict(Config()).items() if isinstance(value, dict)}


def _refuse_groups(argv: list[str]) -> None:
    """Refuse `--config.<group>=…`, which would reset the fields that it does not name to their defaults.

    Raises:
      ConfigError: `argv` contains one.
    """
    for argument in argv[1:]:
        key = argument.lstrip("-").removeprefix("config.").partition("=")[0]
        if argument.lstrip("-").startswith("config.") and (fields := _groups().get(key)):
            meant = next((field for field in fields if field in argument), fields[0])
            raise ConfigError(
                f"{argument}: config.{key} is a group of fields; set its fields one by one, as in "
                f"--config.{key}.{meant}=…"
            )


def _refuse_replaced_groups(tree: Mapping[str, Any]) -> None:
    """Refuse a config file that replaced a group by its own mapping, which would lose the group's other fields.

    A file that contains only some groups is assumed to leave the others at their defaults.

    Raises:
      ConfigError: a group was replaced.
    """
    groups = _groups()
    if not groups.keys() <= tree.keys():
        return
    for name, fields in groups.items():
        if isinstance(tree[name], Mapping) and (lacking := [field for field in fields if field not in tree[name]]):
            raise ConfigError(
                f"the config file has replaced the group config.{name}, which now lacks {', '.join(lacking[:5])}"
                f"{', …' if len(lacking) > 5 else ''}; set its fields one by one, as in config.{name}.{fields[0]} = …"
            )


def _unknown_key(argv: list[str]) -> str | None:
    """The error message for the first `--config.<key>` that `Config` does not have; None if it has all."""
    known, groups = flatten(to_dict(Config())), _groups()
    for argument in argv:
        key = argument.lstrip("-").removeprefix("config.").partition("=")[0]
        if argument.lstrip("-").startswith("config.") and key not in known and key not in groups:
            near = convert.nearest_key(key, known)
            return f"unknown key config.{key}" + (f" (did you mean config.{near}?)" if near else "")
    return None


def _complain(message: str) -> None:
    """Print an error, in red on a terminal that shows colours."""
    before, after = ("\x1b[31m", "\x1b[0m") if output.has_colours(sys.stderr) else ("", "")
    for line in message.splitlines():
        line = f"jaxcnn: {line}" if not line.startswith(" ") else line
        print(f"{before}{line}{after}", file=sys.stderr)


def config_name(values: flags.FlagValues) -> str:
    """The name of the config file and its variant, such as "vgg16_cifar10-paper"."""
    file, _, variant = config_flags.get_config_filename(values["config"]).partition(":")
    return "-".join(filter(None, (pathlib.Path(file).stem, variant)))
