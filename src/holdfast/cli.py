"""Command names -> config class -> function; nothing else. ``holdfast --help`` imports neither torch nor transformers."""

from __future__ import annotations

import dataclasses
import importlib
import os
import sys
from typing import Any

import holdfast
from holdfast import config as configs
from holdfast.errors import HoldfastError, nearest
from holdfast.runs import to_json

COMMANDS: dict[str, tuple[type, str]] = {
    "tune": (configs.TuneConfig, "holdfast.tune:train"),
    "weigh": (configs.WeighConfig, "holdfast.tune.weigh:weigh"),
    "align": (configs.AlignConfig, "holdfast.align:align"),
    "sensitivity run": (configs.SensitivityConfig, "holdfast.sensitivity:measure"),
    "sensitivity variants": (configs.VariantsConfig, "holdfast.sensitivity:make_variants"),
    "sensitivity compare": (configs.CompareConfig, "holdfast.sensitivity:compare"),
    "sensitivity check": (configs.CheckConfig, "holdfast.sensitivity:check"),
    "crosstask run": (configs.CrossTaskConfig, "holdfast.crosstask:transfer"),
    "crosstask label": (configs.LabelConfig, "holdfast.crosstask:label"),
    "crosstask analyse": (configs.AnalyseConfig, "holdfast.crosstask:analyse"),
    "bench run": (configs.BenchConfig, "holdfast.bench:run"),
    "bench compare": (configs.BenchCompareConfig, "holdfast.bench:compare"),
    "study plan": (configs.StudyConfig, "holdfast.study:plan"),
    "study run": (configs.StudyConfig, "holdfast.study:run"),
    "study best": (configs.BestConfig, "holdfast.study.best:best"),
    "report": (configs.ReportConfig, "holdfast.report:report"),
    "demo": (configs.DemoConfig, "holdfast.demo:demo"),
}


def main(argv: list[str] | None = None) -> int:
    """Run a command. Returns the exit code: 0, or 2 for bad input (also what argument errors give)."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        if not argv or argv[0] in ("-h", "--help"):
            print(_overview(), flush=True)
            return 0
        if argv[0] == "--version":
            print(f"holdfast {holdfast.__version__}")
            return 0
        name, arguments = _split(argv)
        if not name:
            print(_overview(argv[0] + " "))
            return 0
        config_class, target = _command(name)
        config = _parse(config_class, name, arguments)
        module, _, function = target.partition(":")
        summary = getattr(importlib.import_module(module), function)(config)
        if config.json:
            print(to_json(summary, indent=1))
        return int(summary.get("exit_code", 0)) if isinstance(summary, dict) else 0
    except HoldfastError as error:
        print(f"error: {error}", file=sys.stderr)
        return int(getattr(error, "exit_code", 2))
    except BrokenPipeError:  # the reader of our output has gone, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("interrupted; the same command continues from the last checkpoint", file=sys.stderr)
        return 130


def _overview(group: str = "") -> str:
    lines = ["usage: holdfast COMMAND [options]     (holdfast COMMAND --help lists them)", "", (holdfast.__doc__ or "").strip(), ""]
    width = max(map(len, COMMANDS))
    for name, (config_class, _) in COMMANDS.items():
        if name.startswith(group):
            lines.append(f"  {name:<{width}}  {(config_class.__doc__ or '').splitlines()[0]}")
    return "\n".join(lines)


def _split(argv: list[str]) -> tuple[str, list[str]]:
    """Command name, of one or two words, and its arguments. An empty name: help on a group of commands was asked for."""
    if not any(name.startswith(argv[0] + " ") for name in COMMANDS):
        return argv[0], argv[1:]
    if len(argv) < 2 or argv[1] in ("-h", "--help"):
        return "", []
    return " ".join(argv[:2]), argv[2:]


def _command(name: str) -> tuple[type, str]:
    if name not in COMMANDS:
        raise HoldfastError(f"unknown command '{name}'; commands are {', '.join(COMMANDS)}", hint=nearest(name, COMMANDS))
    return COMMANDS[name]


def _parse(config_class: type, name: str, arguments: list[str]) -> Any:
    """Flags over the config file over the defaults. tyro makes the options from the config class."""
    import tyro

    given, arguments = _config_file(config_class, _named(config_class, arguments))
    default: Any = tyro.MISSING_NONPROP
    if given:
        fields = {f.name for f in dataclasses.fields(config_class) if _required(f)}
        default = config_class(**dict.fromkeys(fields - given.keys(), tyro.MISSING), **given)
    return tyro.cli(
        config_class,
        prog=f"holdfast {name}",
        args=arguments,
        default=default,
        description=_description(config_class),
        config=(tyro.conf.FlagCreatePairsOff,),
    )


def _named(config_class: type, arguments: list[str]) -> list[str]:
    """Leading arguments without a flag, such as ``compare RUN_A RUN_B``, get the flags that the config class names for them; a list takes
    every such argument, wherever it stands. Short forms that the class names are spelled out."""
    short = getattr(config_class, "short", {})
    rest = [short.get(argument, argument) for argument in arguments]
    fields = {f.name: str(f.type) for f in dataclasses.fields(config_class)}
    made: list[str] = []
    for name in getattr(config_class, "positional", ()):
        flag = "--" + name.replace("_", "-")
        if fields[name].startswith("list") and flag not in rest:
            found, rest = _loose(rest, {"--" + n.replace("_", "-") for n, kind in fields.items() if kind == "bool"})
            made += [flag, *found] if found else []
            continue
        if not rest or rest[0].startswith("-"):
            break
        made += [flag, rest.pop(0)]
    return made + rest


def _loose(arguments: list[str], switches: set[str]) -> tuple[list[str], list[str]]:
    """Arguments that belong to no flag, and the others. A flag that is no switch takes the argument after it."""
    found: list[str] = []
    others: list[str] = []
    taken = False
    for argument in arguments:
        (others if taken or argument.startswith("-") else found).append(argument)
        taken = not taken and argument.startswith("--") and "=" not in argument and argument not in switches
    return found, others


def _description(config_class: type) -> str:
    return f"{(config_class.__doc__ or '').strip()}\n\n--config FILE.yaml gives any of these options by name; flags win over it."


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _config_file(config_class: type, arguments: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Take ``--config FILE`` out of the arguments and read it. Keys equal the flags, with - or _."""
    rest: list[str] = []
    given: dict[str, Any] = {}
    queue = list(arguments)
    while queue:
        argument = queue.pop(0)
        if argument == "--config" or argument.startswith("--config="):
            path = argument.partition("=")[2] or (queue.pop(0) if queue else "")
            given |= _read_config(config_class, path)
        else:
            rest.append(argument)
    return given, rest


def _read_config(config_class: type, path: str) -> dict[str, Any]:
    import yaml

    try:
        with open(path, encoding="utf-8") as file:
            content = yaml.safe_load(file) or {}
    except OSError as error:
        raise HoldfastError(f"--config {path}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise HoldfastError(f"--config {path}: broken YAML: {str(error).partition(chr(10))[0]}") from error
    if not isinstance(content, dict):
        raise HoldfastError(f"--config {path}: not a list of 'option: value' lines")
    known = {f.name for f in dataclasses.fields(config_class)}
    made: dict[str, Any] = {}
    for key, value in content.items():
        name = str(key).replace("-", "_")
        if name not in known:
            raise HoldfastError(f"--config {path}: unknown key '{key}'", hint=nearest(name, known))
        made[name] = configs.check_value(config_class, name, value, f"--config {path}")
    return made


if __name__ == "__main__":
    sys.exit(main())
