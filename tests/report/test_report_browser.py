"""The report in a real browser: it loads without a complaint, asks for nothing, and does what a reader does with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.config import ReportConfig
from holdfast.report import report
from holdfast.report.figures import Axis, Series, points
from holdfast.report.heatmap import Matrix, heat_map
from holdfast.report.html import page as page_of_parts
from holdfast.report.parts import Figure, Note, Part, Section, Tabs
from holdfast.tables.record import Column, Table
from report_browser import Visit, chromium, visit
from report_runs import HOSTILE, make_sensitivity, make_study


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    return made(folder, make_study(folder / "grid"))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sensitivity runs over the same hostile texts, and so a third section that overlays them."""
    folder = tmp_path_factory.mktemp("hostile")
    return made(folder, *(make_sensitivity(folder / name, HOSTILE, sets=3) for name in ("a", "<b>b<")))


def made(folder: Path, *runs: Path) -> Path:
    return Path(
        report(ReportConfig(directories=[str(run) for run in runs], output=str(folder / "report.html"), json=True))[
            "path"
        ]
    )


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A choice between two models, of which each begins with a finding, and in each a choice between two metrics."""
    metrics = [
        Tabs("Metric", [("nll", [dots("nll of " + name)]), ("posix", [dots("posix of " + name)])])
        for name in ("small", "large")
    ]
    models: list[tuple[str, list[Part]]] = [
        (name, [Note(f"{name} is best.", "finding"), part, table()]) for name, part in zip(("small", "large"), metrics)
    ]
    return written(tmp_path_factory.mktemp("chosen"), Tabs("Model", models))


def written(folder: Path, *parts: Part) -> Path:
    (folder / "parts.html").write_text(
        page_of_parts("Parts", [Section("parts", "Test", "here", parts)]), encoding="utf-8"
    )
    return folder / "parts.html"


def dots(title: str, *names: str) -> Figure:
    series = [Series(name, [0, 1], [0.25, 0.5], notes=["a", "b"], look="dots") for name in names or ("one", "two")]
    return points(title, "Two points (no intervals).", series, Axis("share"), Axis("value"))


def table() -> Table:
    return Table(
        "Long words", [Column("name"), Column("value")], [["a" * 80, 1.0], ["b", 2.0]], "A caption of many words. " * 12
    )


@pytest.mark.parametrize("name", ["study", "hostile"])
def test_every_figure_is_drawn_without_a_complaint_and_fits_every_window(
    browser: Any, request: pytest.FixtureRequest, name: str
) -> None:
    with visit(browser, request.getfixturevalue(name)) as seen:
        assert seen.page.locator("details.fold:not([open])").count() > 0
        seen.unfold()
        assert seen.undrawn() == 0
        assert seen.page.locator(".plot .main-svg").count() > 0
        for width in (1200, 800, 360):
            seen.page.set_viewport_size({"width": width, "height": 800})
            seen.settle(f"document.documentElement.scrollWidth <= {width}")


def test_a_pointer_over_a_cell_of_the_plane_gets_a_tooltip(browser: Any, study: Path) -> None:
    with visit(browser, study) as seen:
        plot = seen.page.locator(".plot").first
        plot.scroll_into_view_if_needed()
        plot.locator(".nsewdrag").first.wait_for()
        box = plot.locator(".nsewdrag").first.bounding_box()
        seen.page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + box["height"] * 0.22)
        tip = seen.page.locator(".hoverlayer .hovertext")
        tip.wait_for()
        text = tip.first.text_content()
        assert "response weight: 0.8" in text
        assert "prompt weight: 0.2" in text
        assert "95 % interval" in text


def test_a_figure_offers_these_buttons_and_no_other(browser: Any, study: Path) -> None:
    """plotly has more of them, and one uploads the figure; a picture is made on the spot."""
    with visit(browser, study) as seen:
        seen.scroll()
        bars = seen.page.evaluate("""[...document.querySelectorAll(".modebar")].map(
            (bar) => [...bar.querySelectorAll(".modebar-btn")].map((button) => button.dataset.title))""")
        assert bars
        assert {tuple(bar) for bar in bars} == {("Download plot as a PNG", "Zoom", "Pan", "Reset axes")}
        plot = seen.page.locator(".plot").first
        plot.hover()
        with seen.page.expect_download() as made:
            plot.locator("[data-title^=Download]").click()
        assert made.value.suggested_filename.endswith(".png")


def test_names_from_the_data_are_shown_as_they_are(browser: Any, tmp_path: Path) -> None:
    """Those that look like one of our colours, plotly's templates, markup or formulas, too."""
    names = ["@2", "%{y} @2", "$x^2$", "<b>b</b>"]
    alone = points("Alone", "One point.", [Series(names[1], [1], [0.5], look="dots")], Axis("x"), Axis("$y$"))
    grid = heat_map(
        "Grid",
        "Four cells.",
        Matrix([[0.25, 0.5]], ["@accent"], ["%{z} @1", "$y$"], [["%{x}", "@3"]], ("@4", "%{y}", "$z$")),
    )
    with visit(browser, written(tmp_path, dots("Names", *names), grid, alone)) as seen:
        seen.unfold()
        texts = "[...document.querySelectorAll('%s')].map((text) => text.textContent)"
        assert seen.page.evaluate(texts % ".legendtext") == names
        assert {"%{z} @1", "$y$"} <= set(seen.page.evaluate(texts % ".plot .xtick text"))
        assert "@accent" in seen.page.evaluate(texts % ".plot .ytick text")
        assert tooltip(seen, 2, 0.5, 0.5) == "%{y} @2x: 1$y$: 0.500"
        cell = tooltip(seen, 1, 0.25, 0.5)
        assert "@4: @accent" in cell
        assert "%{y}: %{z} @1" in cell
        assert cell.endswith("%{x}")


def tooltip(seen: Visit, place: int, right: float, down: float) -> str:
    """What a pointer over a point of a figure says."""
    plot = seen.page.locator(".plot").nth(place)
    plot.scroll_into_view_if_needed()
    box = plot.locator(".nsewdrag").first.bounding_box()
    seen.page.mouse.move(box["x"] + box["width"] * right, box["y"] + box["height"] * down)
    plot.locator(".hoverlayer .hovertext").first.wait_for()
    found: str = plot.locator(".hoverlayer .hovertext").first.text_content()
    return found


def test_a_table_is_sorted_by_number_and_by_letter_and_filtered(browser: Any, study: Path) -> None:
    with visit(browser, study) as seen:
        seen.unfold()
        table = seen.page.locator("table").last
        seed = [head.strip() for head in table.locator("thead th").all_inner_texts()].index(
            "test exact match (share of items)"
        )
        button = table.locator("thead button:not(.term)").nth(seed)
        for wanted, reverse in (("ascending", False), ("descending", True)):
            button.click()
            assert table.locator("thead th").nth(seed).get_attribute("aria-sort") == wanted
            cells = [
                text.replace("\N{MINUS SIGN}", "-")
                for text in table.locator(f"tbody tr td:nth-child({seed + 1})").all_inner_texts()
            ]
            values = [float(text) for text in cells if text != "\N{EN DASH}"]
            assert len(values) == 63
            assert values == sorted(values, reverse=reverse)
            assert cells[-1] == "\N{EN DASH}"  # the failed trial has none, and stands last either way
        table.locator("thead button").first.click()
        assert seen.page.locator("table").last.locator("[aria-sort]").count() == 1
        names = table.locator("tbody th").all_inner_texts()
        assert names[0] == "(0, 0.2)"
        assert names[-1] == "(1, 0.8)"
        box = seen.page.locator(".fold", has=seen.page.get_by_role("heading", name="Every trial"))
        box.locator("input[type=search]").fill("failed")
        assert box.locator("tbody tr:visible").count() == 1
        assert box.locator("output").inner_text() == "1 of 64 rows"
        box.locator("input[type=search]").fill("")
        assert box.locator("tbody tr:visible").count() == 64


def test_the_keyboard_reaches_the_content_the_figures_values_and_a_sort(browser: Any, study: Path) -> None:
    with visit(browser, study) as seen:
        page = seen.page
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"
        seen.unfold()
        reached = set()
        for _ in range(120):
            page.keyboard.press("Tab")
            reached.add(
                page.evaluate(
                    "document.activeElement.tagName + ' ' + (document.activeElement.closest('thead') ? 'head' : '')"
                )
            )
            if "BUTTON head" in reached:
                break
        assert {"SELECT ", "SUMMARY ", "BUTTON head"} <= reached
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.closest('th').getAttribute('aria-sort')") == "ascending"


def test_light_and_dark_follow_the_system_and_then_the_button(browser: Any, study: Path) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    label = 'getComputedStyle(document.querySelector(".plot .xtick text")).fill'
    with visit(browser, study, color_scheme="dark") as seen:
        seen.scroll()
        assert seen.undrawn() == 0
        dark = (seen.page.evaluate(ground), seen.page.evaluate(label))
        button = seen.page.locator("#theme")
        assert button.inner_text() == "Light"
        button.click()
        assert button.inner_text() == "Dark"
        light = (seen.page.evaluate(ground), seen.page.evaluate(label))
        assert light[0] != dark[0]
        assert light[1] != dark[1]
        seen.page.emulate_media(color_scheme="light")  # the button's choice stays
        button.click()
        assert (seen.page.evaluate(ground), seen.page.evaluate(label)) == dark


def test_another_set_is_chosen(browser: Any, hostile: Path) -> None:
    with visit(browser, hostile) as seen:
        seen.unfold()
        choice = seen.page.locator(".choice").first
        assert choice.locator(".panel:visible").count() == 1
        choice.locator("select").select_option("2")
        assert choice.locator(".panel:visible").get_attribute("data-panel") == "2"
        plot = choice.locator(".panel:visible .plot").first
        plot.scroll_into_view_if_needed()
        plot.locator(".main-svg").first.wait_for()
        assert "set-0" in choice.locator(".panel:visible h3").first.inner_text()


def test_what_chooses_lies_above_what_is_chosen(browser: Any, chosen: Path) -> None:
    with visit(browser, chosen) as seen:
        seen.scroll()
        gaps = seen.page.evaluate("""[...document.querySelectorAll(".choice")]
          .filter((choice) => choice.offsetParent).map((choice) => {
            const first = [...choice.querySelectorAll(":scope > .panel:not([hidden]) > :not(.panel-name)")][0];
            const below = first.matches(".choice") ? first.querySelector(".chooser") : first;
            const top = below.getBoundingClientRect().top;
            return top - choice.querySelector(":scope > .chooser").getBoundingClientRect().bottom;
        })""")
        assert len(gaps) == 2
        assert min(gaps) > 5


def test_in_a_narrow_window_captions_are_whole_and_no_name_of_an_axis_is_left_out(browser: Any, tmp_path: Path) -> None:
    names = [f"(0.{i}, 0.4{i})" for i in range(6)]
    figure = points(
        "Names", "Six points.", [Series("one", names, range(6), look="dots")], Axis("x", names=names), Axis("y")
    )
    with visit(browser, written(tmp_path, figure, table()), viewport={"width": 400, "height": 800}) as seen:
        seen.unfold()
        shown = "[...document.querySelectorAll('.plot .xtick text')].filter((text) => text.style.display !== 'none')"
        assert seen.page.evaluate(f"{shown}.map((text) => text.textContent)") == names
        right = "(name) => document.querySelector(name).getBoundingClientRect().right"
        boxes = f"['caption', '.scroll:has(caption)'].map({right})"
        caption, scroller = seen.page.evaluate(boxes)
        assert caption <= scroller + 0.5


def test_hostile_text_is_seen_as_text(browser: Any, hostile: Path) -> None:
    with visit(browser, hostile) as seen:
        seen.unfold()
        page = seen.page
        assert page.locator("img, iframe, object, embed, form").count() == 0
        assert page.locator("a:not([href^='#'])").count() == 0  # plotly makes links of labels that it lets
        text = page.locator("#main").inner_text()
        for shown in (
            "<script>alert(1)</script>",
            "</table></section></main>",
            "[U+202E]to left[U+202C]",
            "bell [U+0007]",
            "[U+D800]",
        ):
            assert shown in text
        assert page.get_by_role("heading", name="<b>b<", exact=True).count() == 1
        plot = page.locator(".choice .panel:visible .plot").first
        plot.scroll_into_view_if_needed()
        box = plot.locator(".nsewdrag").first.bounding_box()
        page.mouse.move(box["x"] + box["width"] * 0.05, box["y"] + box["height"] * 0.5)
        page.locator(".hoverlayer .hovertext").first.wait_for()
        assert "response: <script>alert(1)</script>" in page.locator(".hoverlayer .hovertext").first.text_content()
        assert page.locator(".hoverlayer a").count() == 0


def test_tables_and_words_are_there_without_javascript(browser: Any, study: Path) -> None:
    with visit(browser, study, java_script_enabled=False) as seen:
        for name in ("Settings", "Every trial"):  # a fold opens by itself, without a script
            seen.page.locator(".fold > summary", has_text=name).click()
        assert seen.page.locator("tbody tr:visible").count() >= 21 + 64
        assert seen.page.locator(".panel:visible").count() == 4  # a choice shows all it has
        assert seen.page.locator(".filter:visible, .chooser:visible, #theme:visible").count() == 0
        folded = seen.page.locator(".values tbody tr:visible").count()
        seen.page.locator(".fold[open] .values summary").first.click()
        assert seen.page.locator(".values tbody tr:visible").count() == folded + 6


def test_print_is_light(browser: Any, study: Path) -> None:
    with visit(browser, study, color_scheme="dark") as seen:
        content = seen.page.pdf(format="A4")
        assert content[:5] == b"%PDF-"
        assert len(content) > 50_000
        seen.settle("document.documentElement.dataset.theme === undefined")  # as before
        seen.page.emulate_media(media="print")
        assert seen.page.locator("nav, #theme, .filter").first.is_hidden()
        assert seen.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


@pytest.mark.parametrize("name", ["study", "hostile", "chosen"])
def test_on_paper_everything_is_whole(browser: Any, request: pytest.FixtureRequest, name: str) -> None:
    """On A4 with margins of 15 mm, of a page that nobody has scrolled: figures in their places, tables inside the page,
    all panels.
    """
    with visit(browser, request.getfixturevalue(name), viewport={"width": 680, "height": 1000}) as seen:
        print_begins(seen)
        figures = seen.page.evaluate("""[...document.querySelectorAll(".plot")].map((place) => {
            const outer = place.getBoundingClientRect();
            const inner = place.querySelector(".main-svg")?.getBoundingClientRect();
            const inside = (edge) => inner[edge] <= outer[edge] + 1;
            return Boolean(inner) && inner.height > 0 && inside("bottom") && inside("right");
        })""")
        assert figures
        assert all(figures)
        tables = seen.page.evaluate(
            "[...document.querySelectorAll('table')].filter((t) => t.offsetParent).map((t) => t.offsetWidth)"
        )
        assert tables
        assert max(tables) <= 680
        assert seen.page.locator(".panel:visible").count() == seen.page.locator(".panel").count() > 1
        seen.page.evaluate("dispatchEvent(new Event('afterprint'))")


def test_on_paper_each_panel_says_which_one_it_is(browser: Any, chosen: Path) -> None:
    with visit(browser, chosen) as seen:
        assert seen.page.locator(".panel-name:visible").count() == 0
        print_begins(seen)
        names = seen.page.locator(".panel-name:visible").all_inner_texts()
        metrics = ["Metric, 1 of 2: nll", "Metric, 2 of 2: posix"]
        assert names == ["Model, 1 of 2: small", *metrics, "Model, 2 of 2: large", *metrics]
        seen.page.evaluate("dispatchEvent(new Event('afterprint'))")


def test_after_printing_the_screen_is_as_before_and_a_panel_not_yet_seen_is_drawn_at_its_size(
    browser: Any, chosen: Path
) -> None:
    with visit(browser, chosen) as seen:
        print_begins(seen)
        seen.page.evaluate("dispatchEvent(new Event('afterprint'))")
        seen.page.emulate_media(media="screen")
        assert seen.page.locator(".plot:visible").count() == 1
        seen.page.locator("select").first.select_option("1")
        seen.scroll()
        width = "{ const place = [...document.querySelectorAll('.plot')].find((p) => p.offsetParent); "
        width += "place.querySelector('.main-svg').getBoundingClientRect().width - place.clientWidth }"
        assert abs(seen.page.evaluate(width)) <= 1


def print_begins(seen: Visit) -> None:
    seen.page.emulate_media(media="print")
    seen.page.evaluate("dispatchEvent(new Event('beforeprint'))")
