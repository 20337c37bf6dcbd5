"""Scores and answers <-> files, so that a killed run continues and a new variant costs one row and one column of its
matrix.

One SQLite file per identity (weights, tokenizer, type, version of the code, new tokens). A cell is keyed by the ids of
its prompt and its response, so whatever changes the text (template, exemplars, chat) changes the key. Each batch is one
transaction: whole or absent.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.errors import HoldfastError, from_json
from holdfast.records import Ids
from holdfast.sensitivity.responses import Response
from holdfast.sensitivity.task import ScoreTable, SetTask


class Store:
    """Responses and cells of one identity.

    Raises:
        HoldfastError: the file is no database, or cannot be written.
    """

    def __init__(self, folder: Path, identity: Mapping[str, str]) -> None:
        about = json.dumps(dict(identity), sort_keys=True)
        self.path = folder / f"{hashlib.sha256(about.encode()).hexdigest()[:24]}.sqlite"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.base = sqlite3.connect(self.path, timeout=60)
            with self.base:
                self.base.execute("CREATE TABLE IF NOT EXISTS about (identity TEXT PRIMARY KEY)")
                self.base.execute("INSERT OR IGNORE INTO about VALUES (?)", (about,))
                self.base.execute(
                    "CREATE TABLE IF NOT EXISTS responses (prompt BLOB PRIMARY KEY, ids BLOB, text TEXT, margin REAL)"
                )
                self.base.execute("CREATE TABLE IF NOT EXISTS cells (pair BLOB PRIMARY KEY, logp BLOB)")
        except (OSError, sqlite3.Error) as error:
            raise _unusable(self.path, error) from error

    def fetch(self, tasks: Sequence[SetTask], scored: ScoreTable) -> None:
        """Add to ``scored`` what is stored of these tasks."""
        for prompt in _prompts(tasks) - scored.responses.keys():
            row = self.base.execute(
                "SELECT ids, text, margin FROM responses WHERE prompt = ?", (_key(prompt),)
            ).fetchone()
            if row is not None:
                scored.responses[prompt] = Response(tuple(np.frombuffer(row[0], np.int64).tolist()), row[1], row[2])
        for pair in _pairs(tasks, scored) - scored.cells.keys():
            row = self.base.execute("SELECT logp FROM cells WHERE pair = ?", (_key(*pair),)).fetchone()
            if row is not None:
                scored.cells[pair] = np.frombuffer(row[0], np.float64)

    def put(self, tasks: Sequence[SetTask], scored: ScoreTable) -> None:
        """Store what is scored of these tasks."""
        responses = {p: scored.responses[p] for p in _prompts(tasks) & scored.responses.keys()}
        pairs = _pairs(tasks, scored) & scored.cells.keys()
        with self.base:
            self.base.executemany(
                "INSERT OR IGNORE INTO responses VALUES (?, ?, ?, ?)",
                [(_key(p), _blob(r.ids), r.text, r.margin) for p, r in responses.items()],
            )
            self.base.executemany(
                "INSERT OR IGNORE INTO cells VALUES (?, ?)", [(_key(*p), scored.cells[p].tobytes()) for p in pairs]
            )

    def close(self) -> None:
        """Close the file."""
        self.base.close()


class AnswerStore:
    """Answers of chat endpoints, each under the whole content of its request, and on the disk before the next is
    asked for. May be used from many threads.

    Raises:
        HoldfastError: the file is no database, or cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.path, self._lock = folder / "answers.sqlite", threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.base = sqlite3.connect(self.path, timeout=60, check_same_thread=False)
            with self.base:
                self.base.execute(
                    "CREATE TABLE IF NOT EXISTS answers (request BLOB PRIMARY KEY, content TEXT, answer TEXT)"
                )
        except (OSError, sqlite3.Error) as error:
            raise _unusable(self.path, error) from error

    def get(self, request: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the answer to a request, or None."""
        key, _ = _content(request)
        with self._lock:
            row = self.base.execute("SELECT answer FROM answers WHERE request = ?", (key,)).fetchone()
        return None if row is None else dict(from_json(row[0]))

    def put(self, request: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
        """Store one answer."""
        key, content = _content(request)
        with self._lock, self.base:
            self.base.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", (key, content, json.dumps(answer)))

    def close(self) -> None:
        """Close the file."""
        self.base.close()


def _content(request: Mapping[str, Any]) -> tuple[bytes, str]:
    content = json.dumps(request, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(content.encode()).digest(), content


def _unusable(path: Path, error: Exception) -> HoldfastError:
    return HoldfastError(f"{path}: the cache cannot be used ({error})", hint="delete the file, or give another --cache")


def _prompts(tasks: Sequence[SetTask]) -> set[Ids]:
    return set(itertools.chain.from_iterable(task.prompts for task in tasks))


def _pairs(tasks: Sequence[SetTask], scored: ScoreTable) -> set[tuple[Ids, Ids]]:
    pairs: set[tuple[Ids, Ids]] = set()
    for task in tasks:
        for group in task.groups:
            prompts = [task.prompts[i] for i in group]
            responses = [scored.responses[p].ids for p in prompts if p in scored.responses]
            pairs.update(itertools.product(prompts, responses))
    return pairs


def _key(*ids: Ids) -> bytes:
    digest = hashlib.sha256()
    for part in ids:
        digest.update(len(part).to_bytes(8, "little") + _blob(part))
    return digest.digest()


def _blob(ids: Ids) -> bytes:
    return np.array(ids, np.int64).tobytes()
