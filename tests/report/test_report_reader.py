"""What a reader meets in a real browser: four facts, terms that explain themselves, folds that open where they are
asked for, labels that can be read, a filter, and two runs side by side.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.config import ReportConfig
from holdfast.report import report
from report_browser import Visit, chromium, visit
from report_runs import make_sensitivity, make_study, write_json, write_rows

PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study, three tunings and a sensitivity run."""
    folder = tmp_path_factory.mktemp("reader")
    runs = [make_study(folder / "grid", curve=4), *(make_tuning(folder / f"tuned-{i}", i) for i in (1, 2, 3))]
    runs.append(make_sensitivity(folder / "wording", ["yes", "no", "maybe"], sets=3))
    written = report(ReportConfig(directories=list(map(str, runs)), output=str(folder / "report.html"), json=True))
    return Path(written["path"])


def make_tuning(path: Path, place: int) -> Path:
    config = {"model": "pocket", "data": f"rows-{place}.jsonl", "prompt_weight": 0.1 * place, "output": str(path)}
    write_json(path / "config.json", {"command": "tune", "config": config, "resolved": {}})
    curve = [{"kind": "train", "step": i, "loss": 3.0 / i, "response_nll": 3.0 / i} for i in range(1, 6)]
    write_rows(path / "rows.jsonl", [{"kind": "eval", "step": 0, "response_nll": 3.5}, *curve])
    nlls = {
        "before": {"response_nll": 3.5, "prompt_nll": 4.0},
        "after": {"response_nll": 3.5 - place, "prompt_nll": 3.9},
    }
    weights = {"user": 0.1 * place, "assistant": 1.0}
    counts = {"train_examples": 40, "eval_examples": 12, "steps": 5}
    write_json(path / "summary.json", {"command": "tune", "weights": weights, **nlls, **counts})
    return path


def test_each_run_begins_with_four_facts_and_its_command_and_folds_the_rest(browser: Any, page: Path) -> None:
    with visit(browser, page) as seen:
        for place in range(1, 6):
            section = seen.page.locator(f"#run-{place}")
            questions = section.locator(".lead dt").all_inner_texts()
            assert questions == ["What was run", "Main result", "Beyond noise?", "What to do next"]
            assert all(section.locator(".lead dd").all_inner_texts())
            assert section.locator(".command code").inner_text().startswith("holdfast ")
            assert section.locator(".fold[open]").count() == 1
        said = seen.page.locator("#run-2 .lead dd").all_inner_texts()
        assert "Response NLL 3.500 → 2.500 nats per token on 12 held-out examples" in said[1]
        assert (
            said[2]
            == "Unknown: whether another seed would do the same, one training cannot tell, and 12 examples are few."
        )
        command = seen.page.locator("#run-2 .command code").inner_text()
        assert command.startswith("holdfast tune --model pocket --data rows-1.jsonl --prompt-weight 0.1 --output ")


@pytest.mark.parametrize("options", [{}, PHONE], ids=["desktop", "phone"])
def test_figures_are_there_without_scrolling_and_the_page_never_moves_sideways(
    browser: Any, page: Path, options: dict[str, Any]
) -> None:
    with visit(browser, page, **options) as seen:
        seen.settle("document.querySelectorAll('.plot .main-svg').length > 0")
        seen.settle("![...document.querySelectorAll('.plot')].some((p) => p.offsetParent && !p.querySelector('svg'))")
        assert seen.page.evaluate("scrollY") == 0
        seen.unfold()
        assert seen.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        wide = "[...document.querySelectorAll('.scroll')].filter((box) => box.scrollWidth > box.clientWidth + 1).length"
        assert seen.page.evaluate(wide) > 0 or not options  # on a phone, wide tables scroll inside their own box


def test_a_term_explains_itself_by_key_by_touch_and_without_a_script(browser: Any, page: Path) -> None:
    with visit(browser, page, reduced_motion="reduce") as seen:
        term = seen.page.locator("#run-2 .lead .term").first
        term.focus()
        seen.page.keyboard.press("Enter")
        assert_only_word(seen)
        seen.page.keyboard.press("Escape")
        assert seen.page.locator(".word:visible").count() == 0
        names = seen.page.evaluate(
            "[...document.querySelectorAll('.term')].map((one) => one.getAttribute('aria-label'))"
        )
        assert all(name.endswith(": what is that?") for name in names)
        targets = "[...document.querySelectorAll('.term')].every((one) => one.popoverTargetElement.matches('.word'))"
        assert seen.page.evaluate(targets)
        listed = seen.page.locator("#words dt").all_inner_texts()
        assert {"POSIX", "psi", "nats", "NLL", "dev", "prompt share", "seed", "noise"} <= set(listed)
    with visit(browser, page, java_script_enabled=False, reduced_motion="reduce", **PHONE) as seen:
        seen.page.locator("#run-2 .lead .term").first.tap()
        assert_only_word(seen)


def assert_only_word(seen: Visit) -> None:
    """One sentence is shown, inside the window."""
    assert seen.page.locator(".word:visible").count() == 1
    word = seen.page.locator(".word:visible")
    assert len(word.inner_text()) > 40
    box, size = word.bounding_box(), seen.page.viewport_size
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= size["width"]
    assert 0 <= box["y"] <= size["height"]


CONTRAST = """() => {
    const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
    const rgba = (text) => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = text;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const light = ([r, g, b]) => [r, g, b].map((part) => part / 255)
        .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
        .reduce((sum, part, i) => sum + part * [0.2126, 0.7152, 0.0722][i], 0);
    const ratio = (a, b) => {
        const [x, y] = [light(a), light(b)].sort((p, q) => q - p);
        return (x + 0.05) / (y + 0.05);
    };
    const ground = (element) => {
        for (let at = element; at; at = at.parentElement) {
            const colour = rgba(getComputedStyle(at).backgroundColor);
            if (colour[3] === 255) return colour;
        }
        return [255, 255, 255, 255];
    };
    const bad = [], seen = { words: 0, labels: 0 };
    const judge = (kind, element, colour) => {
        seen[kind] += 1;
        const value = ratio(rgba(colour), ground(element));
        if (value < 4.5) bad.push([value.toFixed(2), element.tagName, element.textContent.slice(0, 30)]);
    };
    for (const element of document.querySelectorAll("main *, nav *, header *, footer")) {
        if (!element.checkVisibility() || element.closest(".plot, noscript, script")) continue;
        if ([...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim()))
            judge("words", element, getComputedStyle(element).color);
    }
    for (const text of document.querySelectorAll(".plot text")) {
        if (!text.closest(".plot").checkVisibility() || !text.textContent.trim()) continue;
        if (text.closest(".heatmaplayer")) continue; // they stand on cells, not on the ground
        judge("labels", text, getComputedStyle(text).fill);
    }
    return { bad, seen };
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_label_can_be_read(browser: Any, page: Path, scheme: str) -> None:
    """4.5:1, as WCAG 2.2 (1.4.3) asks of text; computed in the browser, of all words of the page and its figures."""
    with visit(browser, page, color_scheme=scheme) as seen:
        seen.unfold()
        measured = seen.page.evaluate(CONTRAST)
        assert measured["seen"]["words"] > 200
        assert measured["seen"]["labels"] > 30
        assert measured["bad"] == []


def test_a_link_into_a_fold_opens_it(browser: Any, page: Path) -> None:
    with visit(browser, page) as seen:
        fold = seen.page.locator("#run-1 .fold", has=seen.page.get_by_role("heading", name="Every trial"))
        assert fold.get_attribute("open") is None
        name = fold.locator("h3").get_attribute("id")
        seen.page.evaluate(f"location.hash = '{name}'")
        seen.settle(f"document.getElementById('{name}').closest('details').open")
        seen.page.locator("#unfold").click()
        assert seen.page.locator(".fold:not([open])").count() == 0
        seen.page.locator("#unfold").click()
        assert seen.page.locator(".fold[open]").count() == 0


def test_typing_narrows_runs_and_rows(browser: Any, page: Path) -> None:
    with visit(browser, page) as seen:
        box, sections = seen.page.locator("#narrow"), seen.page.locator("section[id^=run-]:visible")
        everything = sections.count()
        box.fill("rows-2.jsonl")
        assert sections.count() == 2  # the run, and where the three stand side by side
        assert seen.page.locator("nav li:visible").count() == 2
        assert "2 of 6 sections" in seen.page.locator("#left").inner_text()
        box.fill("memory failed")
        assert seen.page.locator("section[id^=run-]:visible").get_attribute("id") == "run-1"
        assert seen.page.locator("#run-1 tbody tr:visible").count() == 1  # its fold has opened
        box.fill("")
        assert sections.count() == everything == 6


def test_two_runs_are_compared_side_by_side(browser: Any, page: Path) -> None:
    with visit(browser, page) as seen:
        section = seen.page.locator("section[data-compares]")
        heads = section.locator("thead th:visible")
        assert heads.all_inner_texts() == ["fact", "tuned-1", "tuned-2", "difference"]
        row = section.locator("tbody tr", has=seen.page.get_by_text("response NLL after", exact=True))
        assert row.locator("td:visible").all_inner_texts() == ["2.500", "1.500", "\N{MINUS SIGN}1"]
        section.locator("select").nth(1).select_option(label="tuned-3")
        assert heads.all_inner_texts() == ["fact", "tuned-1", "tuned-3", "difference"]
        assert row.locator("td:visible").all_inner_texts() == ["2.500", "0.500", "\N{MINUS SIGN}2"]
    with visit(browser, page, java_script_enabled=False) as seen:
        assert seen.page.locator("section[data-compares] thead th:visible").count() == 4  # all three, without a choice
        assert seen.page.locator(".tools:visible").count() == 0


def test_on_paper_all_folds_are_open_and_the_words_explained(browser: Any, page: Path) -> None:
    with visit(browser, page, viewport={"width": 680, "height": 1000}) as seen:
        seen.page.emulate_media(media="print")
        seen.page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert seen.page.locator(".fold:not([open])").count() == 0
        assert seen.page.locator(".term:visible, .tools:visible, .pair:visible").count() == 0
        assert seen.page.locator("#words dt:visible").count() > 8
        seen.page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert seen.page.locator(".fold:not([open])").count() > 0
