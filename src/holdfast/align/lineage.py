"""What a model came from: base -> tune -> align, read from the run directories that are still there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from holdfast import runs

_KEYS = ("weights", "prompt_share", "losses", "beta", "learning_rate", "steps", "templates")
_CONFIG_KEYS = ("data", "normalizer", "batch_size", "epochs", "lora_rank", "seed")


def lineage(model: str) -> list[dict[str, Any]]:
    """The stages that made a model, the oldest first: ``{"command": "base", "model": ...}``, then one entry per run."""
    if runs.resolve(model) is None:
        return [{"command": "base", "model": model}]
    found = runs.read_json(Path(model) / "config.json")
    earlier = lineage(found["config"]["model"]) if "model" in found.get("config", {}) else []
    return [*earlier, stage(found["command"], model, found.get("config", {}), found.get("resolved", {}))]


def stage(command: str, path: str, config: dict[str, Any], resolved: dict[str, Any]) -> dict[str, Any]:
    """One run with the settings that decide what it made."""
    settings = {key: config[key] for key in _CONFIG_KEYS if key in config}
    return {"command": command, "path": path} | settings | {key: resolved[key] for key in _KEYS if key in resolved}
