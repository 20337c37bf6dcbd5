"""An order as JSON on stdin -> verdicts of ``alpaca_eval`` in a file.

This is a file of its own, and imports nothing of Holdfast, because it is run as a script by the interpreter of another
environment: that of ``--judge-python``, which has ``alpaca_eval`` and may lack Holdfast.

The annotator is the package's ``alpaca_eval_gpt4`` with the user's model as the judge. Chunks are small because the
package keeps verdicts chunk by chunk.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

CHUNK = 16


def main() -> None:
    """Judge ``FOLDER/outputs.json`` against ``FOLDER/reference.json`` into ``JUDGE/verdicts.json``."""
    order: dict[str, Any] = json.load(sys.stdin)
    import yaml
    from alpaca_eval import annotators, constants

    folder, judge = Path(order["folder"]), Path(order["judge"])
    home = Path(constants.EVALUATORS_CONFIG_DIR)
    annotator = yaml.safe_load((home / "alpaca_eval_gpt4" / "configs.yaml").read_text())["alpaca_eval_gpt4"]
    annotator["prompt_template"] = str(home / annotator["prompt_template"])
    annotator["completions_kwargs"] |= {
        "model_name": order["model"], "is_chat": True, "requires_chatml": True, "price_per_token": 0.0,
        "client_kwargs": {"timeout": order["timeout"], "max_retries": order["retries"]},
    }  # fmt: skip
    config = judge / "configs.yaml"
    config.write_text(yaml.safe_dump({"judge": annotator}))
    forget_unread(judge)
    verdicts = annotators.PairwiseAnnotator(annotators_config=str(config)).annotate_head2head(
        outputs_1=json.loads((folder / "reference.json").read_text(encoding="utf-8")),
        outputs_2=json.loads((folder / "outputs.json").read_text(encoding="utf-8")),
        chunksize=CHUNK,
    )
    (judge / "verdicts.json").write_text(json.dumps(verdicts), encoding="utf-8")


def forget_unread(folder: Path) -> None:
    """Remove verdicts that the package could not read (-1) from its cache, so that it asks for them again."""
    for file in folder.glob("annotations_seed*.json"):
        kept = [row for row in json.loads(file.read_text(encoding="utf-8")) if row["preference"] != -1]
        if kept:
            file.write_text(json.dumps(kept), encoding="utf-8")
        else:
            file.unlink()


if __name__ == "__main__":
    main()
