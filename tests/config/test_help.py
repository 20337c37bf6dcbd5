"""``--help``: short and whole pages, examples that run, and completion in a real shell."""

from __future__ import annotations

import dataclasses
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from golden_case import call, parse
from holdfast.cli import COMMANDS
from holdfast.config.completion import script
from holdfast.config.examples import EXAMPLES
from holdfast.config.help import COMMON, help_page
from holdfast.config.names import option_names, required_options
from holdfast.config.options import GROUPS, help_texts

CLASSES = {name: config_class for name, (config_class, _) in COMMANDS.items()}
EVERY_EXAMPLE = [(name, arguments) for name, listed in EXAMPLES.items() for _, arguments in listed]


def test_the_two_weights_stand_first() -> None:
    text = call("tune --help").out
    flags = re.findall(r"^  (--[a-z-]+)", text, re.MULTILINE)
    assert flags[:2] == ["--prompt-weight", "--response-weight"]
    headings = [
        text.index(f"\n{group.capitalize()}\n") for group in ("weights", "model", "data", "optimisation", "run")
    ]
    assert headings == sorted(headings)
    assert text.startswith("usage: holdfast tune --model MODEL --data DATA ... --output FOLDER [options]\n")


def _flags_of(config_class: type) -> list[str]:
    """Options but for those that a command takes from a file alone."""
    hidden = getattr(config_class, "without_effect", ())
    return [name for name in option_names(config_class) if name not in hidden]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("whole", [False, True])
def test_a_page_of_help(command: str, whole: bool) -> None:
    page = help_page(command, CLASSES[command], {}, whole=whole, width=80)
    assert max(map(len, page.splitlines())) <= 80
    assert "None" not in page
    assert "Default: auto. Default" not in page
    text = " ".join(page.split())
    for name in _flags_of(CLASSES[command]):
        assert re.search(rf"(--(no-)?{name.replace('_', '-')}|\b{name})\b", text), name
    sentences = page.split("\nExamples\n")[0]
    assert sentences.count("  # ") == 0
    assert page.count("  # ") == 3
    listed = re.findall(r"^  (?:-o, )?(?:--|[A-Z.]+ \(--)", sentences, re.MULTILINE)
    assert whole or len(listed) <= 21
    for paragraph in re.split(r"\n(?=  -|  [A-Z.]+ \()", sentences):
        defaults = len(re.findall(r"[Dd]efault:? ", paragraph.split("More options")[0].split("\n\n")[0]))
        assert defaults <= 1 or "Default" not in paragraph.split(". Default")[-1], paragraph


def test_what_is_common_is_an_option_and_holds_what_is_needed() -> None:
    for command, names in COMMON.items():
        assert set(names.split()) <= set(option_names(CLASSES[command])), command
        assert required_options(CLASSES[command]) <= set(names.split()), command
    assert EXAMPLES.keys() == COMMANDS.keys()
    assert all(len(listed) == 3 for listed in EXAMPLES.values())
    assert next(iter(GROUPS)) == "weights"


@pytest.mark.parametrize(("command", "arguments"), EVERY_EXAMPLE)
def test_an_example_is_understood(
    command: str, arguments: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tune.yaml").write_text("model: pocket\ndata: rows.jsonl\n")
    answer = parse(f"{command} {arguments}")
    assert answer.exit_code == 0, answer.err
    assert answer.config is not None


LOOKS = [f"{name} {arguments}" for name, arguments in EVERY_EXAMPLE if "--dry-run" in arguments]


@pytest.mark.parametrize("line", LOOKS)
def test_an_example_that_looks_runs(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    answer = call(line)
    assert answer.exit_code == 0, answer.err
    assert list(tmp_path.iterdir()) == []


def test_values_of_a_file_are_the_defaults_that_are_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text("epochs: 3\njson: true\n")
    text = call("tune --config c.yaml --help").out
    assert "Passes over the data. In the config file: 3" in " ".join(text.split())
    assert "--no-json" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_a_text_is_whole_and_speaks_of_a_default_only_where_it_is_worked_out(command: str) -> None:
    texts = help_texts(CLASSES[command])
    for field in dataclasses.fields(CLASSES[command]):
        text = texts[field.name]
        assert text[0].isupper() or text.split()[0].rstrip(":,.") in WORDS, text
        assert text.endswith((".", ")")), text
        assert text.count("(") == text.count(")"), text
        assert len(text) <= 320, text
        assert "Default" not in text or field.default in (None, ""), f"{field.name}: {text}"
        assert not re.search(r"[Dd]efault [^:]*\d", text), text


WORDS = {"paper", "auto", "plain", "likelihood", "same", "all", "hf", "chat", "sentence-transformers"}
"""Values, as texts may begin with them."""


def test_ways_to_ask_for_help() -> None:
    page = call("tune --help").out
    assert call("help tune").out == page
    assert call("tune -h").out == page
    assert call("tune --model m -h").out == page
    assert call("help bench compare").out.startswith("usage: holdfast bench compare A B [options]")
    assert call("report --help").out.startswith("usage: holdfast report RUN... [options]")
    assert call("study run --help").out.startswith("usage: holdfast study run SPEC [options]")
    assert call("help").out == call("--help").out
    assert call("help bench").out == call("bench").out
    assert call("-V").out == call("--version").out
    assert call("help tuen").exit_code == 2
    whole = " ".join(call("tune --help-all").out.split())
    assert "Also --lr, --learning" not in whole
    assert "Also --lr." in whole


def test_the_package_is_a_command_and_help_is_light() -> None:
    code = (
        "import sys, runpy; sys.argv[1:] = ['tune', '--help-all']\n"
        "try: runpy.run_module('holdfast', run_name='__main__')\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not {'torch', 'transformers', 'tyro', 'numpy', 'yaml'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: holdfast tune")
    done = subprocess.run([sys.executable, "-m", "holdfast", "-V"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("holdfast ")


COMPLETED = {
    "hold": None,
    "tu": ["tune"],
    "sensitivity ": ["run", "variants", "compare", "check"],
    "help cross": ["crosstask"],
    "help crosstask l": ["label"],
    "completion z": ["zsh"],
    "tune --prompt": ["--prompt-weight"],
    "crosstask run --model pocket --no-": ["--no-shorten"],
    "tune --precision ": ["auto", "fp32", "bf16"],
    "tune --precision = b": ["bf16"],
    "bench run --sui": ["--suite"],
    "tune --data ": [],
}


def test_completion_in_bash(tmp_path: Path) -> None:
    lines = [script(["bash"], CLASSES)]
    for typed in COMPLETED:
        words = ["holdfast", *typed.split()] + ([""] if typed.endswith(" ") else [])
        lines.append(f"COMP_WORDS=({' '.join(shlex.quote(word) for word in words)}); COMP_CWORD={len(words) - 1}")
        lines.append('COMPREPLY=(); _holdfast; echo "${COMPREPLY[*]}"')
    lines.append("complete -p holdfast")
    done = subprocess.run(["bash", "-u", "-c", "\n".join(lines)], capture_output=True, text=True)
    assert done.stderr == ""
    *answers, registered = done.stdout.splitlines()
    for typed, answer in zip(COMPLETED, answers, strict=True):
        assert answer.split() == (COMPLETED[typed] or []), typed
    assert registered.endswith("-F _holdfast holdfast")


def test_completion_names_every_option_of_every_command() -> None:
    for shell in ("bash", "zsh", "fish"):
        text = call(f"completion {shell}").out
        for name, config_class in CLASSES.items():
            fields = {field.name: field for field in dataclasses.fields(config_class)} if name != "tune" else {}
            for field in (
                fields[option] for option in _flags_of(config_class) if option in fields and option != "spans"
            ):
                flag = f"{'no-' if field.default is True else ''}{field.name.replace('_', '-')}"
                assert flag in text, (shell, name, flag)


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_take_the_script(shell: str, tmp_path: Path) -> None:
    if not shutil.which(shell):
        pytest.skip(f"there is no {shell} here")
    (tmp_path / "script").write_text(script([shell], CLASSES))
    done = subprocess.run([shell, "-n", str(tmp_path / "script")], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    if shell == "fish":
        asked = f"source {tmp_path}/script; complete -C 'holdfast tune --precision '"
        done = subprocess.run(["fish", "-c", asked], capture_output=True, text=True)
        assert [line.split("\t")[0] for line in done.stdout.splitlines()] == ["auto", "bf16", "fp32"]
