"""Command names -> config class -> function; nothing else. ``holdfast --help`` imports neither torch nor
transformers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import importlib
import os
import select
import shlex
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import holdfast
from holdfast import config as configs
from holdfast.config.completion import script
from holdfast.config.help import help_page, overview
from holdfast.config.options import read_arguments
from holdfast.errors import ExitCode, HoldfastError, nearest, redacted, redacted_values
from holdfast.runs import FAULT_FILE, is_own, to_json, write_text

_GRACE = 10.0
"""Seconds that a terminated command may take to clean up."""

COMMANDS: dict[str, tuple[type, str]] = {
    "tune": (configs.TuneConfig, "holdfast.tune:train"),
    "weigh": (configs.WeighConfig, "holdfast.tune:weigh"),
    "align": (configs.AlignConfig, "holdfast.align:align"),
    "sensitivity run": (configs.SensitivityConfig, "holdfast.sensitivity:measure"),
    "sensitivity variants": (configs.VariantsConfig, "holdfast.sensitivity:make_variants"),
    "sensitivity compare": (configs.CompareConfig, "holdfast.sensitivity:compare"),
    "sensitivity check": (configs.CheckConfig, "holdfast.sensitivity:check"),
    "crosstask run": (configs.CrossTaskConfig, "holdfast.crosstask:transfer"),
    "crosstask label": (configs.LabelConfig, "holdfast.crosstask:label"),
    "crosstask analyse": (configs.AnalyseConfig, "holdfast.crosstask:analyse"),
    "audit": (configs.AuditConfig, "holdfast.audit:audit"),
    "bench run": (configs.BenchConfig, "holdfast.bench:run"),
    "bench compare": (configs.BenchCompareConfig, "holdfast.bench:compare"),
    "study plan": (configs.StudyConfig, "holdfast.study:plan"),
    "study run": (configs.StudyConfig, "holdfast.study:run"),
    "study best": (configs.BestConfig, "holdfast.study:best"),
    "report": (configs.ReportConfig, "holdfast.report:report"),
    "demo": (configs.DemoConfig, "holdfast.demo:demo"),
}


_HELP = {"-h", "--help", "--help-all"}


class _Terminated(BaseException):
    """SIGTERM has come."""


def main(argv: list[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit code (docs/exit-codes.md).
    """
    if argv is None:
        _end_by_sigterm()
        _open_streams()
    argv = sys.argv[1:] if argv is None else argv
    config: Any = None
    try:
        config, target = _asked(argv)
        code = _told(config, _function(target)(config) if target else None)
        sys.stdout.flush()
        return code
    except HoldfastError as error:
        _say(f"error: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        _say("interrupted; the same command continues from the last checkpoint")
        return ExitCode.INTERRUPTED
    except _Terminated:
        _say("terminated; the same command continues from the last checkpoint")
        return ExitCode.TERMINATED
    except Exception as error:
        if (
            isinstance(error, BrokenPipeError) and _nobody_reads()
        ):  # the reader of our output has gone, as `| head` does
            _drop_output()
            return ExitCode.NO_READER
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            _say(f"error: {error.strerror}{f': {error.filename}' if error.filename else ''}")
            _drop_output()
            return ExitCode.BAD_INPUT
        _say(_fault(error, argv, str(getattr(config, "output", ""))))
        return ExitCode.FAULT


def _say(line: str) -> None:
    """On stderr; where nobody reads that, the exit code must do."""
    with contextlib.suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)


def _asked(argv: list[str]) -> tuple[Any, str]:
    """The command that the arguments name, as its config and where its function is; (None, "") after printing help."""
    argv = [*argv[1:], "--help"] if argv[:1] == ["help"] else argv or ["--help"]
    if argv[0] in ("-V", "--version"):
        print(f"holdfast {holdfast.__version__}")
        return None, ""
    classes = {name: config_class for name, (config_class, _) in COMMANDS.items()}
    if argv[0] == "completion":
        print(script(argv[1:], classes))
        return None, ""
    name, arguments = _split(argv)
    if not name:
        print(overview(classes, "" if argv[0] in _HELP else f"{argv[0]} "))
        return None, ""
    config_class, target = _command(name)
    arguments = configs.our_flags(config_class, _with_flags(config_class, arguments), f"holdfast {name}")
    from_file, arguments = _config_file(config_class, arguments)
    if not _HELP.isdisjoint(arguments):
        print(help_page(name, config_class, from_file, whole="--help-all" in arguments))
        return None, ""
    return read_arguments(config_class, arguments, from_file, f"holdfast {name}"), target


def _function(target: str) -> Callable[[Any], Any]:
    module, _, name = target.partition(":")
    function: Callable[[Any], Any] = getattr(importlib.import_module(module), name)
    return function


def _told(config: Any, summary: Any) -> int:
    """The exit code of a command that has ended, after its summary where it is wanted on stdout."""
    if config is not None and config.json:
        print(to_json(redacted_values(summary), indent=1))
    return int(summary.get("exit_code", ExitCode.FINE)) if isinstance(summary, dict) else ExitCode.FINE


def _fault(error: Exception, argv: list[str], output: str) -> str:
    """The line about an error that nobody foresaw. The traceback goes into a file; with HOLDFAST_DEBUG it is shown as
    well.
    """
    trace = redacted("".join(traceback.format_exception(error)))
    about = f"holdfast {holdfast.__version__}, Python {sys.version.split()[0]}, {sys.platform}"
    called = redacted(" ".join(map(shlex.quote, ["holdfast", *argv])))
    place = _write_fault(f"{about}\n{called}\n\n{trace}", output)
    what = redacted(f"{type(error).__name__}: {error}".replace("\n", " "))[:200].rstrip(" :")
    prefix = f"{trace}\n" if os.environ.get("HOLDFAST_DEBUG") else ""
    return f"{prefix}error: a fault of Holdfast, not of yours ({what}); please report it with {place}"


def _write_fault(text: str, output: str) -> str:
    """Write a traceback into the run directory, else into a temporary file, and say where it is."""
    try:
        if output and is_own(Path(output)):
            file = Path(output) / FAULT_FILE
            write_text(file, text)
            return str(file)
        handle, name = tempfile.mkstemp(prefix="holdfast-", suffix="-" + FAULT_FILE)
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as opened:
            opened.write(text)
        return name
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        return f"its traceback, which HOLDFAST_DEBUG=1 shows (no file could be written: {reason})"


def _nobody_reads() -> bool:
    """Whether what we print goes into a pipe that is closed at the other end."""
    try:
        poll = select.poll()
        for stream in (sys.stdout, sys.stderr):
            poll.register(stream.fileno(), 0)
        return any(events & select.POLLERR for _, events in poll.poll(0))
    except (AttributeError, OSError, ValueError):  # no poll on this system, no file behind stdout
        return True


def _drop_output() -> None:
    """What is still to be printed would fail again when Python ends."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_streams() -> None:
    """A stream that was closed (``>&-``) is None in Python, and what is printed to None goes to stdout."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  # as long as the process


def _end_by_sigterm() -> None:
    """SIGTERM unwinds, so that children and temporary files go as well; but not for longer than ten seconds."""

    owner = os.getpid()

    def end(*_: Any) -> None:
        if os.getpid() != owner:  # a child that was forked off, and has nothing to clean up
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
            return
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        late = threading.Timer(_GRACE, os._exit, [int(ExitCode.TERMINATED)])
        late.daemon = True
        late.start()
        raise _Terminated

    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, end)


def _split(argv: list[str]) -> tuple[str, list[str]]:
    """Return the name of the command, of one or two words, and its arguments. The name is empty where help on a group
    of commands was asked for.
    """
    if argv[0] in _HELP:
        return "", []
    if not any(name.startswith(argv[0] + " ") for name in COMMANDS):
        return argv[0], argv[1:]
    if len(argv) < 2 or argv[1] in _HELP:
        return "", []
    return " ".join(argv[:2]), argv[2:]


def _command(name: str) -> tuple[type, str]:
    if name not in COMMANDS:
        raise HoldfastError(
            f"unknown command '{name}'; commands are {', '.join(COMMANDS)}", hint=nearest(name, COMMANDS)
        )
    return COMMANDS[name]


def _with_flags(config_class: type, arguments: list[str]) -> list[str]:
    """Leading arguments without a flag, such as ``compare RUN_A RUN_B``, get the flags that the config class names for
    them; a list takes every such argument, wherever it stands. Short forms that the class names are spelled out."""
    short = getattr(config_class, "short", {})
    rest = [short.get(argument, argument) for argument in arguments]
    fields = {f.name: str(f.type) for f in dataclasses.fields(config_class)}
    named: list[str] = []
    for name in getattr(config_class, "positional", ()):
        flag = "--" + name.replace("_", "-")
        if fields[name].startswith("list") and flag not in rest:
            loose, rest = _loose(rest, {"--" + n.replace("_", "-") for n, kind in fields.items() if kind == "bool"})
            named += [flag, *loose] if loose else []
            continue
        if not rest or rest[0].startswith("-"):
            break
        named += [flag, rest.pop(0)]
    return named + rest


def _loose(arguments: list[str], switches: set[str]) -> tuple[list[str], list[str]]:
    """Arguments that belong to no flag, and the others. A flag that is no switch takes the argument after it."""
    loose: list[str] = []
    others: list[str] = []
    taken = False
    for argument in arguments:
        (others if taken or argument.startswith("-") else loose).append(argument)
        taken = not taken and argument.startswith("--") and "=" not in argument and argument not in switches
    return loose, others


def _config_file(config_class: type, arguments: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Take ``--config FILE`` out of the arguments and read it. Keys equal the flags, with - or _."""
    rest: list[str] = []
    values: dict[str, Any] = {}
    queue = list(arguments)
    while queue:
        argument = queue.pop(0)
        if argument == "--config" or argument.startswith("--config="):
            path = argument.partition("=")[2] or (queue.pop(0) if queue else "")
            values |= _read_config(config_class, path)
        else:
            rest.append(argument)
    return values, rest


def _read_config(config_class: type, path: str) -> dict[str, Any]:
    from holdfast.data.read import read_yaml
    from holdfast.data.yaml_errors import options_hint

    content = read_yaml(Path(path), f"--config {path}") or {}
    if not isinstance(content, dict):
        raise HoldfastError(f"--config {path}: not a list of 'option: value' lines", hint=options_hint(content))
    options = configs.our_names(config_class, {str(key): value for key, value in content.items()}, f"--config {path}")
    for name in options.keys() & {*getattr(config_class, "not_from_file", ())}:
        _say(f"note: --config {path}: '{name}' is that of its own run; here it counts on the command line alone")
        del options[name]
    return {name: configs.check_value(config_class, name, value, f"--config {path}") for name, value in options.items()}


if __name__ == "__main__":
    sys.exit(main())
