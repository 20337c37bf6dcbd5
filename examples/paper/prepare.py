"""Write the data of arXiv 2507.07817 that need more than a name: python examples/paper/prepare.py [FOLDER, default
data]

lima.jsonl               GAIR/lima, as messages (gated: accept its terms on the hub first)
tulu.jsonl               a random 150,000 of allenai/tulu-v2-sft-mixture (the paper's draw is not published)
dev.jsonl, test.jsonl    1,000 others of the mixture each, without its LIMA and Alpaca parts
posix-prompts.jsonl      5,000 random prompts of yahma/alpaca-cleaned
"""

import json
import random
import sys
from pathlib import Path

SEED = 23


def lima_messages(conversation: list[str]) -> list[dict[str, str]]:
    """Turns in alternation, the user first."""
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(conversation)]


def draw(origins: list[str], size: int, held_out: int) -> tuple[list[int], list[int], list[int]]:
    """Indices of the training rows, and of dev and test, which are of origins that the other data sets do not share."""
    order = random.Random(SEED).sample(range(len(origins)), len(origins))
    rest = [i for i in order[size:] if not any(name in origins[i].lower() for name in ("lima", "alpaca"))]
    return order[:size], rest[:held_out], rest[held_out : 2 * held_out]


def alpaca_prompts(rows: list[dict[str, str]], size: int) -> list[dict[str, str]]:
    """Instructions with their inputs, drawn at random."""
    chosen = random.Random(SEED).sample(rows, size)
    return [{"prompt": "\n\n".join(text for text in (row["instruction"], row["input"]) if text)} for row in chosen]


def write(path: Path, rows: list[dict]) -> None:
    """One row per line."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    print(f"{path}: {len(rows)} rows")


def main(folder: Path) -> None:
    """Download and write everything."""
    from datasets import load_dataset

    folder.mkdir(parents=True, exist_ok=True)
    write(
        folder / "lima.jsonl",
        [{"messages": lima_messages(r["conversations"])} for r in load_dataset("GAIR/lima", split="train")],
    )
    tulu = load_dataset("allenai/tulu-v2-sft-mixture", split="train")
    for name, indices in zip(("tulu", "dev", "test"), draw(tulu["dataset"], 150_000, 1_000), strict=True):
        write(folder / f"{name}.jsonl", [{"messages": row["messages"]} for row in tulu.select(indices)])
    write(
        folder / "posix-prompts.jsonl", alpaca_prompts(list(load_dataset("yahma/alpaca-cleaned", split="train")), 5_000)
    )


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "data"))
