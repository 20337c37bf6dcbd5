"""Text of a run is shown and never acts; the page allows its own two scripts and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from holdfast.report.html import _environment
from holdfast.report.parts import Note
from holdfast.report.reading import read_rows
from holdfast.report.sets import word_diff
from holdfast.tables.text import duration, escape, label, number, slug, visible
from report_page import page_of
from report_runs import HOSTILE, make_sensitivity, make_study, write_json


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_shown_and_does_nothing(tmp_path: Path, text: str) -> None:
    page = page_of(tmp_path, make_sensitivity(tmp_path / "p", [text, "plain", text + " again"]))
    assert {tag for tag, _ in page.tags} <= {
        *(
            "html",
            "head",
            "meta",
            "title",
            "link",
            "style",
            "body",
            "a",
            "header",
            "p",
            "span",
            "h1",
            "h2",
            "h3",
            "button",
            "div",
            "nav",
            "ol",
            "li",
        ),
        *(
            "main",
            "section",
            "bdi",
            "dl",
            "dt",
            "dd",
            "figure",
            "noscript",
            "figcaption",
            "details",
            "summary",
            "table",
            "caption",
            "thead",
            "tr",
        ),
        *(
            "th",
            "tbody",
            "td",
            "label",
            "input",
            "output",
            "select",
            "option",
            "ul",
            "del",
            "ins",
            "small",
            "footer",
            "script",
            "b",
            "pre",
            "code",
        ),
    }
    assert len(page.of("script")) == 3
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert {a.get("href", "")[:1] for a in page.of("a")} == {"#"}  # type: ignore[index]
    shown = visible(text)
    assert shown in page.text.replace("↵\n", "↵")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", page.text)


def test_the_policy_allows_the_two_scripts_of_the_page_and_nothing_else(tmp_path: Path) -> None:
    import base64
    import hashlib

    page = page_of(tmp_path, make_study(tmp_path / "s", seeds=1))
    policy = next(m["content"] for m in page.of("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    scripts = re.findall(r"<script>(.*?)</script>", page.source, re.DOTALL)
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"].split() == hashes
    assert len(hashes) == 2
    assert rules.keys() == {"default-src", "script-src", "style-src", "img-src", "base-uri", "form-action"}
    assert rules["img-src"] == "data: blob:"


def test_nothing_on_the_page_points_elsewhere(tmp_path: Path) -> None:
    page = page_of(tmp_path, make_study(tmp_path / "s", seeds=1))
    assert page.of("link") == [{"rel": "icon", "href": "data:,"}]
    assert not [a for a in page.tags if {"src", "srcset", "action", "poster", "data"} & a[1].keys()]
    assert "url(" not in "".join(text for tag, text in page.texts if tag == "style")
    assert page.source.count("plotly.js v") == 1  # inlined once


def test_text_helpers() -> None:
    assert visible("a\tb\r\n") == "a⇥b[U+000D]↵"
    assert visible("a\nb", lines=True) == "a↵\nb"
    assert visible("\x1b\x7f\u202e\ufeff\ud800") == "[U+001B][U+007F][U+202E][U+FEFF][U+D800]"
    assert visible("Ω ß 漢 ह्न्दी 👩‍🔬") == "Ω ß 漢 ह्न्दी 👩‍🔬"
    assert escape('<a title="x">') == "&lt;a title=&quot;x&quot;&gt;"
    assert label("<b>" + "x" * 100, 20) == "&lt;b&gt;xxxxxxxxx…xxxxxxx"
    assert [number(v) for v in (None, float("nan"), 1.0, -0.25, 1234567, 2e-5, float("inf"))] == [
        "\N{EN DASH}",
        "\N{EN DASH}",
        "1.000",
        "\N{MINUS SIGN}0.250",
        "1,234,567",
        "2e\N{MINUS SIGN}05",
        "∞",
    ]
    assert number(0.000547, None) == "0.000547"
    assert number(10**400) == f"{10**400:,}"
    assert [number(v) for v in ("text", ["a", 1], {"a": None}, True)] == ["text", "['a', 1]", "{'a': None}", "yes"]
    assert [number(-1.1e-17), number(2.2e-18, None)] == ["0.000", "0"]
    assert [duration(s) for s in (8.25, 200, 18423)] == ["8.25 s", "3 min 20 s", "5 h 07 min"]
    assert slug("Ünï / code: <x>") == "uni-code-x"
    assert slug("漢字") == "part"


def test_what_stands_in_the_place_of_a_number_is_shown_and_does_nothing(tmp_path: Path) -> None:
    run = make_sensitivity(tmp_path / "p", ["yes", "no"])
    odd = {"model": ["<script>alert(1)</script>"], "max_new_tokens": {"tokens": "<b>"}, "shots": 10**400}
    write_json(run / "config.json", {"command": "sensitivity run", "config": odd, "resolved": {}})
    page = page_of(tmp_path, run, format="html,md")
    assert all(text in page.text for text in ("['<script>alert(1)</script>']", "{'tokens': '<b>'}", f"{10**400:,}"))
    assert len(page.of("script")) == 3
    assert "\\['&lt;script&gt;alert(1)&lt;/script&gt;'\\]" in (tmp_path / "page.md").read_text()


def test_a_row_with_a_number_of_thousands_of_digits_is_skipped_and_counted(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(f'{{"step": 1}}\n{{"step": {"9" * 5000}}}\n')
    rows, problems = read_rows(tmp_path / "rows.jsonl")
    assert rows == [{"step": 1}]
    assert problems == ["1 row of rows.jsonl could not be read and was skipped."]


def test_very_long_text_is_shortened_on_the_page_and_whole_in_csv(tmp_path: Path) -> None:
    word = "x" * 100_000
    page = page_of(tmp_path, make_sensitivity(tmp_path / "p", [word, "y" * 100_000], sets=1), format="html,csv")
    assert "[…96,000 characters left out…]" in page.text
    assert max(len(text) for tag, text in page.texts if tag not in ("script", "style")) < 5000
    assert word in next(tmp_path.glob("page-*-responses-*.csv")).read_text()


def test_a_diff_names_what_went_and_what_came() -> None:
    pieces = word_diff("What is the colour of it?", "What is the color of that?")
    assert "".join(p.text for p in pieces if p.role != "added") == "What is the colour of it?"
    assert "".join(p.text for p in pieces if p.role != "removed") == "What is the color of that?"
    assert [(p.text, p.role) for p in pieces if p.role] == [("u", "removed"), ("it", "removed"), ("that", "added")]
    assert [p.role for p in word_diff("same", "same")] == [""]
    assert word_diff("", "new")[0].role == "added"
    shots = "".join(f"Question {i}: what is {i} plus {i}?\nAnswer: {2 * i}\n\n" for i in range(400))
    pieces = word_diff(shots + "What is the colour?", shots + "What is the color?")
    assert [(p.text, p.role) for p in pieces if p.role] == [("u", "removed")]
    assert "".join(p.text for p in pieces if p.role != "added") == shots + "What is the colour?"
    assert [p.role for p in word_diff("a " + shots, "b " + shots[::-1])] == ["removed", "added"]
    assert [p.role for p in word_diff("ab" * 10_000, "ba" * 10_000)] == [
        "removed",
        "added",
    ]  # letter by letter this takes half a minute
    assert [p.role for p in word_diff("short", shots)] == ["removed", "added"]


def test_templates_escape_what_they_print_and_refuse_a_name_that_does_not_exist() -> None:
    from jinja2 import UndefinedError

    templates = _environment()
    assert templates.from_string("<b>{{ name }}</b>").render(name="<i>\x07\u202e") == "<b>&lt;i&gt;[U+0007][U+202E]</b>"
    with pytest.raises(UndefinedError):
        templates.from_string("{{ nmae }}").render(name="x")
    with pytest.raises(UndefinedError):
        templates.from_string("{{ part.tittle }}").render(part=Note("x"))
