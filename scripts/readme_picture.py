"""Make docs/images/holdfast.png: a conversation coloured by role and weight, beside the report of the demo.

usage: python scripts/readme_picture.py DEMO_FOLDER      (made by `holdfast demo`; needs playwright and a Chromium)
"""

from __future__ import annotations

import base64
import contextlib
import html
import io
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROLES = {"template": "#e7e5df", "system": "#e7e5df", "user": "#cfe3f7", "assistant": "#bfe6cf", "eos": "#f6d5a8"}
STYLE = """
body { margin: 0; width: 1400px; height: 620px; display: flex; gap: 24px; padding: 24px; box-sizing: border-box;
       background: #f4f3ef; font-family: "DejaVu Sans", sans-serif; color: #1c2321; }
.left { width: 560px; background: #fff; border-radius: 12px; padding: 26px 28px; box-sizing: border-box; }
.right { flex: 1; border-radius: 12px; overflow: hidden; background: #fff; }
.right img { width: 100%; display: block; }
h1 { font-size: 23px; margin: 0 0 6px; } p { font-size: 15px; line-height: 1.45; margin: 0 0 16px; color: #46504d; }
.tokens { font-size: 17px; margin-top: 22px; }
.t { position: relative; display: inline-block; min-width: 21px; line-height: 1.3; margin-bottom: 20px;
     padding: 4px 1px; white-space: pre; border-radius: 3px; margin-right: 2px; }
.t i { position: absolute; left: 1px; top: 33px; font: 10.5px/1 "DejaVu Sans"; color: #5b6663; }
.key span { display: inline-block; padding: 3px 9px; border-radius: 3px; font-size: 14px; margin: 4px 8px 0 0; }
"""


def tokens() -> list[dict]:
    from holdfast.cli import main

    line = "tune --model pocket --data pocket:instructions --prompt-weight 0.2 --response-weight 0.8 --limit 40"
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(io.StringIO()):
        main([*line.split(), "--output", "unused", "--dry-run", "--json", "--row", "8"])
    return json.loads(stream.getvalue())["row"]


def panel(row: list[dict]) -> str:
    spans = []
    for token in row:
        weight = "" if token["weight"] is None else f"{token['weight']:g}"
        text = html.escape(token["text"]).replace("\n", "⏎")
        spans.append(f'<span class="t" style="background:{ROLES[token["role"]]}">{text}<i>{weight}</i></span>')
    used = dict.fromkeys(token["role"] for token in row)
    key = "".join(f'<span style="background:{ROLES[role]}">{role}</span>' for role in used)
    return (
        "<h1>Which tokens pay, and how much</h1><p>holdfast tune --prompt-weight 0.2 --response-weight 0.8: "
        f'every token has a role, every role a weight.</p><div class="tokens">{"<wbr>".join(spans)}</div>'
        f'<div class="key">{key}</div><p style="margin-top:18px">The end of the answer is paid: a model that is never '
        "paid for stopping does not learn to stop.</p>"
    )


def main() -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1000, "height": 950})
        page.goto((Path(sys.argv[1]) / "report.html").resolve().as_uri())
        page.wait_for_timeout(2000)
        shot = base64.b64encode(page.screenshot(clip={"x": 0, "y": 0, "width": 1000, "height": 950})).decode()
        page.set_viewport_size({"width": 1400, "height": 620})
        right = f'<img src="data:image/png;base64,{shot}">'
        page.set_content(
            f'<style>{STYLE}</style><div class="left">{panel(tokens())}</div><div class="right">{right}</div>'
        )
        page.screenshot(path=str(ROOT / "docs" / "images" / "holdfast.png"))
        browser.close()


if __name__ == "__main__":
    main()
