"""Completion in bash, zsh and fish: a script for the whole tree of commands, made from the config classes.

commands and their options -> ``holdfast completion SHELL`` -> a script that asks Holdfast nothing, so that it is fast.
Commands, options and their choices are completed; everything else as file names.
"""

from __future__ import annotations

import dataclasses
import shlex
import textwrap
from collections.abc import Mapping, Sequence

from holdfast.config.options import choices_of, flag_of, help_texts, kinds_of, takes_flag
from holdfast.errors import HoldfastError

_BASH = r"""# completion of holdfast for bash:  eval "$(holdfast completion bash)"
_holdfast() {
  local current="${COMP_WORDS[COMP_CWORD]}" previous="${COMP_WORDS[COMP_CWORD-1]}" command="${COMP_WORDS[1]}" words=""
  local at=1
  if [[ "$current" == "=" ]]; then current=""; fi
  if [[ "$previous" == "=" ]]; then previous="${COMP_WORDS[COMP_CWORD-2]}"; fi
  if [[ "$command" == help ]]; then at=2; command="${COMP_WORDS[2]-}"; fi
  case "$command" in @GROUPS@) at=$((at + 1)); command="$command ${COMP_WORDS[at]-}";; esac
  if (( COMP_CWORD == 1 )); then
    words="@TOP@"
  elif (( COMP_CWORD <= at )); then
    case "${command%% *}" in
@SECOND@
      *) words="@NAMES@";;
    esac
  else
    case "$command $previous" in
@CHOICES@
    esac
    if [[ -z "$words" && "$current" == -* ]]; then
      case "$command" in
@OPTIONS@
      esac
    fi
  fi
  COMPREPLY=($(compgen -W "$words" -- "$current" || true))
}
complete -o default -o bashdefault -F _holdfast holdfast"""
_ZSH = r"""#compdef holdfast
# completion of holdfast for zsh:  eval "$(holdfast completion zsh)", or save it as _holdfast in a folder of $fpath
_holdfast() {
  local command=$words[2] previous=$words[CURRENT-1]
  local -i at=2
  local -a items
  if [[ $command == help ]]; then at=3; command=$words[3]; fi
  case $command in @GROUPS@) at+=1; command="$command $words[at]";; esac
  if (( CURRENT <= at )); then
    if (( CURRENT == 2 )); then items=(@TOP@); else
      case ${command%% *} in
@SECOND@
        *) items=(@NAMES@);;
      esac
    fi
    compadd -a items
    return
  fi
  case "$command $previous" in
@CHOICES@
  esac
  if (( $#items )); then compadd -a items; return; fi
  if [[ $words[CURRENT] == -* ]]; then
    case $command in
@OPTIONS@
    esac
    _describe -o option items
    return
  fi
  _files
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
compdef _holdfast holdfast"""
_EXTRA = ("help", "completion", "--help", "--version")
_EVERYWHERE = {"--config": "options from a YAML file", "--help": "the help", "--help-all": "all options"}
SHELLS = ("bash", "zsh", "fish")


def script(arguments: Sequence[str], commands: Mapping[str, type]) -> str:
    """Return the script of completion for the shell that the arguments name.

    Raises:
        HoldfastError: they name none of the three.
    """
    if len(arguments) != 1 or arguments[0] not in SHELLS:
        wrong = f"not '{' '.join(arguments)}'" if arguments else "and none is named"
        raise HoldfastError(
            f"holdfast completion: the shell is one of {', '.join(SHELLS)}, {wrong}",
            hint='eval "$(holdfast completion bash)" completes in this shell; the line belongs in ~/.bashrc',
        )
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[arguments[0]](commands)


def _tree(commands: Mapping[str, type]) -> dict[str, list[str]]:
    """Return the first words of the commands, each with its second words."""
    tree: dict[str, list[str]] = {}
    for name in commands:
        first, _, second = name.partition(" ")
        tree.setdefault(first, [])
        tree[first] += [second] if second else []
    return tree


def _options(config_class: type) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return the flags of a command: what each means in a few words, and its choices."""
    options: dict[str, tuple[str, tuple[str, ...]]] = {}
    kinds, texts = kinds_of(config_class), help_texts(config_class)
    for field in dataclasses.fields(config_class):
        if takes_flag(kinds[field.name]) and field.name not in getattr(config_class, "without_effect", ()):
            text = textwrap.shorten(texts.get(field.name, "").split(". ")[0].rstrip("."), 80, placeholder=" ...")
            options[flag_of(field.name, field.default)] = (text, choices_of(kinds[field.name]))
    return options | {flag: (text, ()) for flag, text in _EVERYWHERE.items()}


def _filled(template: str, commands: Mapping[str, type], parts: Mapping[str, Sequence[str]]) -> str:
    tree = _tree(commands)
    groups = [first for first, seconds in tree.items() if seconds]
    lists = {"GROUPS": "|".join(groups), "TOP": " ".join([*tree, *_EXTRA]), "NAMES": " ".join(tree)}
    for name, text in (lists | {name: "\n".join(lines) for name, lines in parts.items()}).items():
        template = template.replace(f"@{name}@", text)
    return template


def _bash(commands: Mapping[str, type]) -> str:
    second = [f'      {first}) words="{" ".join(names)}";;' for first, names in _tree(commands).items() if names]
    second.append(f'      completion) words="{" ".join(SHELLS)}";;')
    choices: list[str] = [f'      "completion "*) words="{" ".join(SHELLS)}";;']
    options: list[str] = []
    for name, config_class in commands.items():
        flags = _options(config_class)
        options.append(f'        "{name}") words="{" ".join(flags)}";;')
        choices += [f'      "{name} {flag}") words="{" ".join(c)}";;' for flag, (_, c) in flags.items() if c]
    return _filled(_BASH, commands, {"SECOND": second, "CHOICES": choices, "OPTIONS": options})


def _zsh(commands: Mapping[str, type]) -> str:
    second = [f"        {first}) items=({' '.join(names)});;" for first, names in _tree(commands).items() if names]
    choices: list[str] = [f'    "completion "*) items=({" ".join(SHELLS)});;']
    options: list[str] = []
    for name, config_class in commands.items():
        flags = _options(config_class)
        described = [shlex.quote(f"{flag}:{text}") for flag, (text, _) in flags.items()]
        options.append(f'      "{name}") items=({" ".join(described)});;')
        choices += [f'    "{name} {flag}") items=({" ".join(c)});;' for flag, (_, c) in flags.items() if c]
    return _filled(_ZSH, commands, {"SECOND": second, "CHOICES": choices, "OPTIONS": options})


def _fish(commands: Mapping[str, type]) -> str:
    tree = _tree(commands)
    firsts = [*tree, "help", "completion"]
    lines = ["# completion of holdfast for fish:  holdfast completion fish | source"]
    none = f"not __fish_seen_subcommand_from {' '.join(firsts)}"
    lines.append(f"complete -c holdfast -f -n '{none}' -a '{' '.join(firsts)}'")
    lines.append(f"complete -c holdfast -f -n '__fish_seen_subcommand_from completion' -a '{' '.join(SHELLS)}'")
    lines.append(f"complete -c holdfast -f -n '__fish_seen_subcommand_from help' -a '{' '.join(tree)}'")
    for first, names in tree.items():
        if names:
            seen = f"__fish_seen_subcommand_from {first}; and not __fish_seen_subcommand_from {' '.join(names)}"
            lines.append(f"complete -c holdfast -f -n '{seen}' -a '{' '.join(names)}'")
    for name, config_class in commands.items():
        seen = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in name.split())
        for flag, (text, choices) in _options(config_class).items():
            values = f" -x -a '{' '.join(choices)}'" if choices else ""
            lines.append(f"complete -c holdfast -n '{seen}' -l {flag[2:]}{values} -d {_fish_quoted(text)}")
    return "\n".join(lines)


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
