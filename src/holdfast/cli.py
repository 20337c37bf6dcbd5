"""Command names -> config class -> function; nothing else. ``holdfast --help`` imports neither torch nor transformers."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import importlib
import json
import os
import sys
from typing import Any

import holdfast
from holdfast import config as configs
from holdfast.errors import HoldfastError

COMMANDS: dict[str, tuple[type, str]] = {
    "tune": (configs.TuneConfig, "holdfast.tune:train"),
    "sensitivity run": (configs.SensitivityConfig, "holdfast.sensitivity:measure"),
    "sensitivity variants": (configs.VariantsConfig, "holdfast.sensitivity:make_variants"),
    "sensitivity compare": (configs.CompareConfig, "holdfast.sensitivity:compare"),
    "sensitivity check": (configs.CheckConfig, "holdfast.sensitivity:check"),
    "crosstask run": (configs.CrossTaskConfig, "holdfast.crosstask:transfer"),
    "crosstask label": (configs.LabelConfig, "holdfast.crosstask:label"),
    "crosstask analyse": (configs.AnalyseConfig, "holdfast.crosstask:analyse"),
    "demo": (configs.DemoConfig, "holdfast.demo:demo"),
}


def main(argv: list[str] | None = None) -> int:
    """Run a command. Returns the exit code: 0, or 2 for bad input (also what argument errors give)."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(_overview())
        return 0
    if argv[0] == "--version":
        print(f"holdfast {holdfast.__version__}")
        return 0
    try:
        name, arguments = _split(argv)
        if not name:
            print(_overview(argv[0] + " "))
            return 0
        config_class, target = _command(name)
        config = _parse(config_class, name, arguments)
        module, _, function = target.partition(":")
        summary = getattr(importlib.import_module(module), function)(config)
        if config.json:
            print(json.dumps(summary, indent=1, ensure_ascii=False))
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
        raise HoldfastError(f"unknown command '{name}'; commands are {', '.join(COMMANDS)}", hint=_nearest(name, COMMANDS))
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
    """Leading arguments without a flag, such as ``compare RUN_A RUN_B``, get the flags that the config class names for them."""
    made: list[str] = []
    rest = list(arguments)
    for name in getattr(config_class, "positional", ()):
        if not rest or rest[0].startswith("-"):
            break
        made += ["--" + name.replace("_", "-"), rest.pop(0)]
    return made + rest


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
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise HoldfastError(f"--config {path}: broken YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(content, dict):
        raise HoldfastError(f"--config {path}: not a list of 'option: value' lines")
    known = {f.name for f in dataclasses.fields(config_class)}
    made: dict[str, Any] = {}
    for key, value in content.items():
        name = str(key).replace("-", "_")
        if name not in known:
            raise HoldfastError(f"--config {path}: unknown key '{key}'", hint=_nearest(name, known))
        made[name] = _typed(config_class, name, value, path)
    return made


def _typed(config_class: type, name: str, value: Any, path: str) -> Any:
    """A YAML value as the field's type, checked; YAML reads 2e-5 as text and 1 as an integer."""
    import typing

    from typeguard import TypeCheckError, check_type

    wanted = typing.get_type_hints(config_class)[name]
    if wanted == dict[str, str] and isinstance(value, dict):
        return {str(key): str(item) for key, item in value.items()}
    attempts = [value]
    if isinstance(value, str | int) and not isinstance(value, bool):
        with contextlib.suppress(ValueError):
            attempts.append(float(value))
    for attempt in attempts:
        try:
            return check_type(attempt, wanted)
        except TypeCheckError:
            continue
    raise HoldfastError(f"--config {path}: '{name}' is {value!r}, which is not of type {getattr(wanted, '__name__', wanted)}")


def _nearest(name: str, known: Any) -> str | None:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean '{near[0]}'?" if near else None


if __name__ == "__main__":
    sys.exit(main())
