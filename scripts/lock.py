"""Resolve ``requirements.lock`` (the library) and ``requirements-dev.lock`` (with the dev extras) in fresh
environments.

pip installs from them, so that every machine tests the same versions. torch is pinned here and only ranged in
pyproject.toml.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TORCH = "torch==2.13.0"
BUILD = ["hatchling", "editables"]


def resolve(target: str, extra: list[str]) -> list[str]:
    """``name==version`` of everything that installing ``target`` brings."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = f"{folder}/bin/python"
        subprocess.run([python, "-m", "pip", "install", "--quiet", TORCH, *extra, target], check=True)
        listed = subprocess.run(
            [python, "-m", "pip", "list", "--format=freeze"], capture_output=True, text=True, check=True
        ).stdout
    ours = ("holdfast==", "pip==", "setuptools==")
    return sorted((line.split("+")[0] for line in listed.splitlines() if not line.startswith(ours)), key=str.lower)


def main() -> None:
    for name, target in (("requirements.lock", str(ROOT)), ("requirements-dev.lock", f"{ROOT}[dev]")):
        lines = resolve(target, BUILD)
        (ROOT / name).write_text("# Made by `make lock`; do not edit.\n" + "\n".join(lines) + "\n", encoding="utf-8")
        print(f"{name}: {len(lines)} packages", file=sys.stderr)


if __name__ == "__main__":
    main()
