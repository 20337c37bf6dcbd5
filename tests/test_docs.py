"""Every block of README and docs is marked, does what the page says, and prints what the page shows."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs_blocks import Block, Page, blocks, differences, same_line
from real_server import serving

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
REAL_MODEL = os.environ.get("HOLDFAST_REAL_MODEL", "")


def _run(page: Path, folder: Path, kinds: tuple[str, ...], replaced: dict[str, str] | None = None) -> None:
    here = Page(folder, replaced)
    wrong = [differences(block, here.run(block)) for block in blocks(page) if block.kind in (*kinds, "file")]
    assert not any(wrong), "\n\n".join(filter(None, wrong))


def _with(kind: str) -> list[Path]:
    return [page for page in PAGES if any(block.kind == kind for block in blocks(page))]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_every_block_is_marked(page: Path) -> None:
    unmarked = [f"{block.where}: {block.lines[:1]}" for block in blocks(page) if not block.kind]
    assert not unmarked
    for block in blocks(page):
        assert block.kind not in ("file", "show") or block.argument, f"{block.where}: which file, or why"


@pytest.mark.parametrize("page", _with("run"), ids=lambda p: p.stem)
def test_page(page: Path, tmp_path: Path) -> None:
    _run(page, tmp_path, ("run",))


@pytest.mark.full
@pytest.mark.parametrize("page", _with("run full"), ids=lambda p: p.stem)
def test_long_page(page: Path, tmp_path: Path) -> None:
    _run(page, tmp_path, ("run", "run full"))


@pytest.mark.full
@pytest.mark.skipif(not REAL_MODEL, reason="HOLDFAST_REAL_MODEL names no folder of SmolLM2-135M-Instruct")
@pytest.mark.parametrize("page", _with("real-model"), ids=lambda p: p.stem)
def test_page_on_a_real_model(page: Path, tmp_path: Path) -> None:
    (tmp_path / "SmolLM2-135M-Instruct").symlink_to(REAL_MODEL)
    _run(page, tmp_path, ("run", "real-model"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    python, model = os.environ.get("HOLDFAST_LLAMACPP", ""), os.environ.get("HOLDFAST_REAL_GGUF", "")
    if not python or not Path(model).is_file():
        pytest.skip("HOLDFAST_LLAMACPP names no Python with llama-cpp-python[server], or HOLDFAST_REAL_GGUF no file")
    line = [python, "-m", "llama_cpp.server", "--model", model, "--model_alias", "smollm2", "--n_ctx", "2048", "--port"]
    with serving(line, {}, tmp_path_factory.mktemp("server") / "log.txt", 120) as address:
        yield address


@pytest.mark.full
@pytest.mark.parametrize("page", _with("server"), ids=lambda p: p.stem)
def test_page_behind_a_server(page: Path, tmp_path: Path, server: str) -> None:
    _run(page, tmp_path, ("run", "server"), {"http://127.0.0.1:8000/v1": server})


def test_the_site_builds(tmp_path: Path) -> None:
    """Links, anchors and docstrings are checked by mkdocs."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _block(lines: str, kind: str = "run") -> Block:
    return Block(Path("page.md"), 1, 9, "console", kind, "", lines.splitlines())


def test_a_changed_output_is_noticed(tmp_path: Path) -> None:
    page = Page(tmp_path)
    block = _block("$ echo one; echo 2.50; echo 'took 3.1 s'\none\n2.48\ntook 9.9 s")
    assert not differences(block, page.run(block))
    for wrong in ("$ echo one\ntwo", "$ echo 2.5\n3.5", "$ echo one; echo two\none", "$ echo one\none\ntwo"):
        block = _block(wrong)
        assert differences(block, page.run(block)), wrong
    block = _block("$ echo one; echo two; echo three\none\n...\nthree")
    assert not differences(block, page.run(block))


def test_blocks_that_nobody_marked_are_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "Text\n\n    indented\n\n<!-- run -->\n```console\n$ ls\n```\n\n```\nplain\n```\n\n* item\n\n    more\n"
    )
    assert [block.kind for block in blocks(page)] == ["", "run", ""]


def test_numbers_are_compared() -> None:
    assert same_line("POSIX 0.40 ± 0.16", "POSIX  0.41 ± 0.15")
    assert not same_line("POSIX 0.40", "POSIX 0.94")
    assert not same_line("POSIX 0.40", "psi 0.40")
