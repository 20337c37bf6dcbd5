"""The report's other formats, its arguments, bad input, and how light and fast it is."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from holdfast.cli import main
from holdfast.config import ReportConfig
from holdfast.errors import HoldfastError
from holdfast.report import files, report
from report_page import page_of
from report_runs import make_sensitivity, make_study


def test_markdown_holds_every_table_and_escapes_its_own_marks(tmp_path: Path) -> None:
    run = make_sensitivity(tmp_path / "p", ["a | b", "<b>*x*</b>", "`c`\n| d |"])
    report(ReportConfig(directories=[str(run)], output=str(tmp_path / "r.html"), format="md", json=True))
    text = (tmp_path / "r.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("|")]
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in rows[:6]}
    assert len(widths) == 1
    assert "a \\| b" in text
    assert "&lt;b&gt;\\*x\\*&lt;/b&gt;" in text
    assert "\\`c\\`↵\\| d \\|" in text
    assert not (tmp_path / "r.html").exists()


def test_csv_holds_full_precision_and_defuses_formulas(tmp_path: Path) -> None:
    study = make_study(tmp_path / "s", seeds=2)
    made = report(ReportConfig(directories=[str(study)], output=str(tmp_path / "r.html"), format="csv", json=True))
    assert len(made["files"]) == made["figures"] + made["tables"]
    path = next(f for f in made["files"] if f.endswith("-s-every-trial.csv"))
    rows = list(csv.DictReader(Path(path).read_text().splitlines()))
    trial = json.loads((study / "rows.jsonl").read_text().splitlines()[1])
    assert len(rows) == 43
    assert float(rows[0]["test exact match (share of items)"]) == trial["test"]["exact_match"]
    assert "rung" not in rows[0]  # a column that is empty everywhere is left out
    hostile = make_sensitivity(tmp_path / "p", ["=1+1", "@x", "-1", "fine"])
    report(ReportConfig(directories=[str(hostile)], output=str(tmp_path / "h.html"), format="csv", json=True))
    responses = next(tmp_path.glob("h-*-responses-*.csv")).read_text()
    assert "'=1+1" in responses
    assert not re.search(r"(^|,)[=@]", responses, re.MULTILINE)


@pytest.mark.full
def test_png_of_every_figure_and_links_to_them_in_markdown(tmp_path: Path) -> None:
    pictures(tmp_path, make_study(tmp_path / "s", seeds=1))


def test_png_of_a_figure(tmp_path: Path) -> None:
    pictures(tmp_path, make_sensitivity(tmp_path / "p", ["yes", "no"], sets=2))


def pictures(tmp_path: Path, run: Path) -> None:
    import shutil

    pytest.importorskip("kaleido", reason="kaleido (extra png) is not installed")
    if not any(shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome", "chrome")):
        pytest.skip("no Chrome or Chromium is installed")
    made = report(
        ReportConfig(directories=[str(run)], output=str(tmp_path / "a report (1).html"), format="png,md", json=True)
    )
    png = [Path(f) for f in made["files"] if f.endswith(".png")]
    assert len(png) == made["figures"]
    for path in png:
        content = path.read_bytes()
        assert content[:8] == b"\x89PNG\r\n\x1a\n"
        assert int.from_bytes(content[16:20], "big") == 1640
    text = (tmp_path / "a report (1).md").read_text()
    assert re.findall(r"\]\((.*?\.png)\)", text) == [
        path.name.replace("a report (1)", "a%20report%20%281%29") for path in png
    ]


def test_png_without_kaleido_names_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "kaleido", None)
    with pytest.raises(HoldfastError, match=r"needs the package kaleido") as error:
        page_of(tmp_path, make_study(tmp_path / "s", seeds=1), format="png")
    assert 'pip install "holdfast[png]"' in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no run directory given"),
        (["nowhere"], "nowhere: no such directory"),
        (["."], "not a run directory"),
        (["s", "--format", "html,pdf"], "--format html,pdf: allowed are html, md, png, csv"),
        (["s", "--format", ","], "allowed are html"),
        (["s", "-o", "missing/r.html"], "the folder missing does not exist"),
        (["s", "--limit", "-1"], "--limit is -1; it must be at least 0"),
        (["s", "-o", "s"], "--output s is a directory"),
        (
            ["s", "-o", "x.pdf"],
            "--output x.pdf: a report is not written as pdf\n  hint: formats are html, md, png, csv",
        ),
        (["s", "-o", "x.md"], "--output x.md: the report is written as html, not as md\n  hint: add --format md"),
        (["s", "-o", "mine.html"], "--output: mine.html exists and is no report's"),
        (["s", "-o", "mine", "--format", "md"], "--output: mine.md exists and is no report's"),
        (["s", "-o", "mine", "--format", "csv"], "--output: mine-07-s-settings.csv exists and is no report's"),
        (["s", "-o", "folder"], "--output: folder.html is a directory"),
    ],
)
def test_bad_input_is_refused_with_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    make_study(tmp_path / "s", seeds=1)
    mine = [tmp_path / name for name in ("mine.html", "mine.md", "mine-07-s-settings.csv")]
    for path in mine:
        path.write_text("my own, about the Holdfast report")
    (tmp_path / "folder.html").mkdir()
    assert main(["report", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert [path.read_text() for path in mine] == ["my own, about the Holdfast report"] * 3
    assert len(list(tmp_path.iterdir())) == 5  # nothing was written


def test_files_of_other_formats_are_not_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "notes.html").write_text("mine")
    study = make_study(tmp_path / "s", seeds=1)
    report(ReportConfig(directories=[str(study)], output=str(tmp_path / "notes.md"), format="md,csv", json=True))
    assert (tmp_path / "notes.html").read_text() == "mine"


def test_a_report_made_again_replaces_its_own_files_and_no_others(tmp_path: Path) -> None:
    study, prompts = make_study(tmp_path / "s", seeds=1), make_sensitivity(tmp_path / "p", ["yes", "no"])

    def made(run: Path, formats: str, **options: bool) -> set[Path]:
        config = ReportConfig(
            directories=[str(run)], output=str(tmp_path / "r.html"), format=formats, json=True, **options
        )
        return {Path(path) for path in report(config)["files"]}

    first = made(study, "html,csv")
    (tmp_path / "r-01-mine.csv").write_text("mine")
    second = made(prompts, "html,md,csv")
    assert not [path for path in first - second if path.exists()]
    assert all(path.exists() for path in second)
    made(study, "html")  # tables of the earlier report stay, and are still known as its own
    (tmp_path / "r.md").unlink()
    assert second <= made(prompts, "html,md,csv")
    for page in ("r.html", "r.md"):
        (tmp_path / page).unlink()
    with pytest.raises(HoldfastError, match=r"\.csv exists and is no report's"):
        made(prompts, "csv")
    made(prompts, "csv", overwrite=True)
    assert (tmp_path / "r-01-mine.csv").read_text() == "mine"


def test_a_page_can_have_only_numbered_files_of_its_own_name_removed(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("mine")
    (tmp_path / "r.html").write_text("<!-- Holdfast report 0.1.0: ../mine.csv /../mine.csv 01-../mine.csv -->")
    assert files.earlier(tmp_path / "r") == []


def test_a_folder_of_runs_is_refused_with_their_names(tmp_path: Path) -> None:
    make_study(tmp_path / "runs" / "s", seeds=1)
    with pytest.raises(HoldfastError, match=r"did you mean .*runs/s\?"):
        page_of(tmp_path, tmp_path / "runs")


def test_directories_may_stand_before_and_after_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        make_study(tmp_path / name, seeds=1)
    assert main(["report", "a", "--json", "-o", "r.html", "b"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert [run["directory"] for run in made["runs"]] == ["a", "b"]
    assert made["path"] == str(tmp_path / "r.html")
    assert main(["report", "--directories", "a", "b", "--dry-run", "-o", "other.html"]) == 0
    assert "Study: b\n  figure  Weight plane: exact match" in capsys.readouterr().out
    assert not (tmp_path / "other.html").exists()


def test_the_page_is_light_to_make(tmp_path: Path) -> None:
    import subprocess
    import sys

    study = make_study(tmp_path / "s", seeds=1)
    code = (
        "import sys; from holdfast.cli import main; "
        f"assert main(['report', {str(study)!r}, '-o', {str(tmp_path / 'r.html')!r}]) == 0; "
        "print(sorted({'torch', 'transformers', 'pandas', 'scipy', 'sklearn', 'kaleido'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [str(tmp_path / "r.html"), "[]"]
    code = (
        "import sys; from holdfast.cli import main\n"
        "main(['report', '--help']); print(sorted({'torch', 'numpy', 'plotly'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--format TEXT" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_two_hundred_runs_make_a_small_page_fast(tmp_path: Path) -> None:
    """The short form of ``benchmarks/report.py`` (1,000 runs: under 20 s and 15 MB)."""
    study = make_study(tmp_path / "s", seeds=10, curve=20)
    made = report(ReportConfig(directories=[str(study)], output=str(tmp_path / "r.html"), json=True))
    assert made["runs"][0]["rows"] == 212
    assert made["seconds"] < 8
    assert made["bytes"] < 7e6
