"""Write tests/golden/template_matrix.json anew: what is read of every chat template of the installed TRL.

    python scripts/write_template_matrix.py

Look at the difference before it is committed: a cell may change only for a reason.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "helpers"))


def main() -> None:
    """One line per cell, so that a difference shows which cells changed."""
    import template_matrix

    lines = []
    for name in template_matrix.names():
        tokenizer = template_matrix.tokenizer_of(name)
        cells = {"sha256": hashlib.sha256(tokenizer.chat_template.encode()).hexdigest()[:16]}
        for conversation, row in template_matrix.CONVERSATIONS.items():
            outcome = template_matrix.cell(tokenizer, row)
            cells[conversation] = {key: outcome[key] for key in ("read", "refused") if key in outcome}
        pairs = (f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in cells.items())
        lines.append(f"{json.dumps(name)}: {{\n" + ",\n".join(pairs) + "}")
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    (ROOT / "tests" / "golden" / "template_matrix.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
