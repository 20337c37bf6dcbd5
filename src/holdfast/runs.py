"""The run directory: what every command leaves behind, and how the next one finds it.

    OUTPUT/config.json    command, version, config as given, values resolved from it
    OUTPUT/rows.jsonl     one row per log step (or per item), appended
    OUTPUT/summary.json   written last: its presence means that the run is complete
    OUTPUT/model/         a tuned model in Hugging Face layout

JSON files appear whole or not at all. Numbers that are not finite are null in them, and API keys are left out
(``errors.redacted``), so changing a key does not make a different run. A directory holds one run: the same config
continues it or returns its summary, a different one is refused. One process at a time works on it.

The life of a run is that of a ``with`` block, for every command the same:

    with runs.command(config, "tune") as run:      --output is looked at, nothing is touched
        if summary := run.finished():
            return summary
        ...                                        all that can be wrong is found here
        run.open(resolved)                         locked; emptied with --overwrite; config.json
        return run.finish(summary)                 summary.json; on leaving, however that comes about, others are let in
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import math
import os
import re
import shutil
import sys
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import holdfast
from holdfast.config import RunConfig, with_recipe
from holdfast.config.legacy import as_begun, date_of, old_values
from holdfast.errors import REDACTED, HoldfastError, from_json, redacted_values, without_keys
from holdfast.progress import without_noise

# Fields that do not change the result, so they may differ when a run is continued.
_IRRELEVANT = {"output", "overwrite", "dry_run", "json", "report_to"}
_MADE = {"output", "cache", "embeddings"}  # fields that name what is written, not what is read
_LOCK = ".lock"
_PARTIAL = ".partial"
_FILES = ("model_path", "data_path", "labels_path")
"""Parts of a summary that name a file of the run."""
FAULT_FILE = "fault.txt"
"""The traceback of an error that is a fault of Holdfast."""
_NO_RUN_YET = {_LOCK, FAULT_FILE, FAULT_FILE + _PARTIAL, "config.json" + _PARTIAL}
"""Files that may be in a directory before its run has begun. A killed process may have left the partial ones."""
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}
_held: dict[tuple[int, int] | None, Any] = {}
"""The locks that this process holds, keyed by the identity of the locked file, not by its name.

So a directory that was deleted and made again counts as a different one.
"""


@dataclasses.dataclass
class RunDir:
    """The files of a run. ``summary`` is that of the finished run if there is one."""

    path: Path
    summary: dict[str, Any] | None = None

    @property
    def rows(self) -> Path:
        """The rows file."""
        return self.path / "rows.jsonl"

    @property
    def model(self) -> Path:
        """The folder of the tuned model."""
        return self.path / "model"

    def append(self, row: dict[str, Any]) -> None:
        """Add one row, in one write."""
        with self.rows.open("a", encoding="utf-8") as file:
            file.write(without_keys(to_json(row)) + "\n")

    def keep_rows(self, last_step: int, kinds: Collection[str] | None = None) -> None:
        """Drop the rows after ``last_step``, and the rows of that step whose kind is not in ``kinds`` (None keeps all
        of them).

        They belong to work that the resumed run will repeat.
        """
        if self.rows.exists():
            lines = [line for line in self.rows.read_text(encoding="utf-8").splitlines() if _step(line) <= last_step]
            kept = [
                line
                for line in lines
                if kinds is None or _step(line) < last_step or json.loads(line).get("kind") in kinds
            ]
            write_text(self.rows, "".join(line + "\n" for line in kept))

    def finish(self, summary: dict[str, Any]) -> dict[str, Any]:
        """Write the summary, which completes the run. Returns it as written."""
        summary = redacted_values(summary)
        write_json(self.path / "summary.json", summary)
        return summary


Check = Callable[[RunConfig, str], dict[str, Any] | None]
"""Takes a config and the name of its command; returns the summary if that run is already complete in --output."""


@dataclasses.dataclass
class Run(RunDir):
    """A run of a command, from the first look at --output until its summary is written; see ``command``."""

    config: RunConfig = dataclasses.field(kw_only=True)
    command: str = dataclasses.field(kw_only=True)
    check: Check = dataclasses.field(kw_only=True)
    held: contextlib.ExitStack = dataclasses.field(kw_only=True)
    _is_held: bool = False
    _is_cleared: bool = False

    def finished(self, **parts: Any) -> dict[str, Any] | None:
        """Return the summary of the run if it is complete and has these ``parts``, and say so on stderr.

        None if there is still work to do, and for a dry run.
        """
        if (
            self.summary is None
            or self.config.dry_run
            or any(self.summary.get(name) != value for name, value in parts.items())
        ):
            return None
        print(f"{self.config.output}: already complete; --overwrite starts anew", file=sys.stderr)
        files = {
            name: str(self.path / Path(self.summary[name]).name)
            for name in _FILES
            if isinstance(self.summary.get(name), str)
        }
        return self.summary | files  # the run may have been moved since

    def check_data(self, digest: Callable[[], Any], *, always: bool = True) -> None:
        """Raise if the data are not those that the run began with: it is neither continued nor returned as complete on
        other data.

        Args:
            digest: digest of the data as they are now.
            always: False for a command whose earlier versions recorded no digest; runs without one are then accepted.

        Raises:
            HoldfastError: neither config.json nor the summary has this ``data_digest``.
        """
        file = self.path / "config.json"
        if self.config.overwrite or not file.is_file():
            return
        resolved = read_json(file).get("resolved")
        before = resolved if isinstance(resolved, dict) and "data_digest" in resolved else self.summary or {}
        if not always and "data_digest" not in before:
            return
        if before.get("data_digest") != digest():
            raise HoldfastError(
                f"{self.path}: the data has changed since this run began",
                hint="choose another --output, or --overwrite to start anew",
            )

    def hold(self) -> None:
        """Create the directory and lock it against other processes.

        If it is new and the run is never opened, it is removed at the end.

        Raises:
            HoldfastError: another process is at work there or has left a different run, or the directory cannot be
                written.
        """
        if self._is_held:
            return
        is_new = not self.path.exists()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.held.enter_context(locked(self.path))
        except OSError as error:
            raise HoldfastError(f"cannot write to --output {self.path}: {error.strerror}") from error
        self._is_held = True
        self.check(self.config, self.command)  # again: another process may have come and gone since the first look
        if is_new:
            self.held.callback(lambda: None if (self.path / "config.json").exists() else self.withdraw())

    def clear(self) -> None:
        """Delete what an earlier run has left. Only the first call does, so what this run writes stays."""
        if not self._is_cleared:
            empty(self.path)
        self._is_cleared = True

    def open(self, resolved: dict[str, Any]) -> None:
        """Begin or continue the run. Call it after every check that can be made in advance.

        With --overwrite, an earlier run is deleted at this point.

        Args:
            resolved: values derived from the config; written into config.json.
        """
        self.hold()
        about = {
            "command": self.command,
            "version": holdfast.__version__,
            "config": dataclasses.asdict(self.config),
            "resolved": resolved,
        }
        try:
            if self.config.overwrite:
                self.clear()
            (self.path / FAULT_FILE).unlink(missing_ok=True)  # of an earlier attempt
            write_json(self.path / "config.json", redacted_values(about))
            if self.summary is not None:  # of the same run over other data, or another state of the model
                (self.path / "summary.json").unlink(missing_ok=True)
        except OSError as error:
            raise HoldfastError(f"cannot write to --output {self.path}: {error.strerror}") from error

    def withdraw(self) -> None:
        """Remove the directory of a run that came to nothing."""
        shutil.rmtree(self.path, ignore_errors=True)


def check_output(config: RunConfig, command: str) -> dict[str, Any] | None:
    """Look at --output without touching it.

    Returns:
        the summary, if this very run is already complete there.

    Raises:
        HoldfastError: the directory holds a different run and --overwrite was not given; or it holds something that is
            not a run; or, with --overwrite, it holds files that the command is to read.
    """
    path = Path(config.output)
    if not config.output:
        raise HoldfastError("--output is empty; it names a directory")
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:  # a name too long, a folder that is closed to us, a circle of links
        raise HoldfastError(f"--output {path} cannot be used: {error.strerror}") from error
    if path.is_symlink() and not path.exists():
        raise HoldfastError(f"--output {path} is a link to a place that does not exist ({os.readlink(path)})")
    if path.exists() and not path.is_dir():
        raise HoldfastError(f"--output {path} is a file, not a directory")
    if not path.exists() or _is_empty(path):
        return None
    about = _read_config(path)
    if config.overwrite:
        check_not_read(
            path, {"--" + name.replace("_", "-"): value for name, value in vars(config).items() if name not in _MADE}
        )
        return None
    changed = _differences(about, config, command)
    if changed:
        raise HoldfastError(
            f"--output {path} holds another run ({', '.join(changed)} differ)",
            hint="choose another directory, or --overwrite to delete that run",
        )
    summary = path / "summary.json"
    return _read_summary(summary) if summary.exists() else None


def _read_summary(path: Path) -> dict[str, Any]:
    hint = "remove it, and the same command goes on from what else is there; or --overwrite to start anew"
    try:
        summary = read_json(path)
    except HoldfastError as error:
        raise HoldfastError(error.message, hint=hint) from error
    if not isinstance(summary, dict):
        raise HoldfastError(f"{path}: not the summary of a run, which is a JSON object", hint=hint)
    return summary


@contextlib.contextmanager
def command(config: RunConfig, name: str, *, path: Path | None = None, check: Check = check_output) -> Iterator[Run]:
    """Return the context in which a run of command ``name`` lives. Nothing on disk is touched before ``Run.hold`` or
    ``Run.open``; the lock is released at the end, whatever happens.

    Args:
        config: of the command.
        name: name of the command.
        path: the run directory, if it is not --output.
        check: looks at the directory; gives the summary of the run if it is complete.

    Raises:
        HoldfastError: see ``check_output``.
    """
    with contextlib.ExitStack() as held:
        held.enter_context(without_noise())
        summary = check(config, name)
        folder = path or Path(config.output)
        if not config.overwrite and (folder / "config.json").is_file():
            with contextlib.suppress(HoldfastError):  # a damaged file is refused by ``check``, or where it is continued
                config = as_begun(config, read_json(folder / "config.json"))
        yield Run(folder, summary, config=with_recipe(config), command=name, check=check, held=held)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock a directory against other processes. This process may enter it several times; the lock is released when it
    has left as often.

    Raises:
        HoldfastError: another process is at work there.
        OSError: it cannot be written.
    """
    from filelock import FileLock, Timeout

    file = path.resolve() / _LOCK
    lock = _held.get(_identity(file)) or FileLock(file, timeout=0, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise HoldfastError(f"another process is at work on {path}", hint="wait for it, or stop it first") from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        lock = None
    # no lock of another kind instead: one that a killed process left would keep everybody out for ever
    if lock is None:
        print(f"note: the file system of {path} has no locks: nothing keeps other processes out", file=sys.stderr)
        yield
        return
    place = _identity(file)
    _held[place] = lock
    try:
        yield
    finally:
        lock.release()
        if not lock.is_locked:
            _held.pop(place, None)


def _identity(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def is_own(path: Path) -> bool:
    """Return whether the directory exists and holds a run, or nothing yet."""
    if not path.is_dir():
        return False
    try:
        return _is_empty(path) or bool(_read_config(path))
    except HoldfastError:
        return False


def empty(path: Path) -> None:
    """Delete everything in a run directory but its lock. summary.json goes first, so that a half-deleted run is never
    taken for a complete one; config.json goes last, so that it is still recognised as a run.
    """
    order = {"summary.json": 0, "config.json": 2}
    for entry in sorted(path.iterdir(), key=lambda entry: order.get(entry.name, 1)):
        if entry.name != _LOCK:
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def check_not_read(path: Path, read: Mapping[str, Any]) -> None:
    """Raise if deleting the directory would delete what the command reads, or the current directory.

    ``read`` maps names to a path or paths; values that are not paths are ignored.

    Raises:
        HoldfastError: it would; the message names the file.
    """
    place = path.resolve()
    if Path.cwd().is_relative_to(place):
        raise HoldfastError(f"--overwrite would delete the current directory, {place}", hint="choose another --output")
    for name, value in read.items():
        for item in value if isinstance(value, list | tuple) else [value]:
            if isinstance(item, str) and os.path.exists(item) and Path(item).resolve().is_relative_to(place):
                raise HoldfastError(
                    f"--overwrite would delete {name} {item}, which is in --output {path}",
                    hint="choose another --output",
                )


def resolve(name: str | os.PathLike[str]) -> Path | None:
    """Return the model folder of a run directory, or None if ``name`` is not a run directory."""
    run, folder = Path(name), Path(name) / "model"
    is_model = (folder / "config.json").is_file() or (folder / "adapter_config.json").is_file()
    return folder if (run / "config.json").is_file() and is_model else None


def read_json(path: Path) -> Any:
    """Read a JSON file of a run directory.

    Raises:
        HoldfastError: missing or broken.
    """
    try:
        return from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise HoldfastError(f"{path}: no such file") from error
    except OSError as error:
        raise HoldfastError(f"{path}: cannot be read ({error.strerror})") from error
    except (
        ValueError
    ) as error:  # also of text that is not UTF-8, of numbers with thousands of digits, and of nesting too deep
        raise HoldfastError(f"{path}: broken JSON ({error})") from error


def read_rows(path: Path, *, cut_off: bool = False, problems: list[str] | None = None) -> list[dict[str, Any]]:
    """The rows of a JSONL file that Holdfast has written.

    Args:
        cut_off: whether a killed process may have cut the file short. If so, a broken last line is ignored, and the
            file may be absent or empty.
        problems: a list that a sentence on broken rows is added to. Broken rows are then left out wherever they stand,
            and the file may be absent or empty.

    Raises:
        HoldfastError: absent, empty or broken; names file and row.
    """
    strict = not cut_off and problems is None
    try:
        lines = path.read_bytes().split(b"\n")  # not splitlines: JSON strings may hold other line separators
    except FileNotFoundError as error:
        if strict:
            raise HoldfastError(f"{path}: no such file") from error
        return []
    except OSError as error:
        raise HoldfastError(f"{path}: cannot be read ({error.strerror})") from error
    rows, broken = [], 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            rows.append(_row(line, f"{path}, row {number}"))
        except HoldfastError:
            if problems is None and not (cut_off and number == len(lines)):
                raise
            broken += 1
    if strict and not rows:
        raise HoldfastError(f"{path}: no rows")
    if broken and problems is not None:
        counted = "1 row" if broken == 1 else f"{broken:,} rows"
        problems.append(f"{counted} of {path.name} could not be read and {'was' if broken == 1 else 'were'} skipped.")
    return rows


def kept_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file that will be appended to. If a killed process has cut the last line, it is removed,
    from the file as well.
    """
    if path.is_file():
        content = path.read_bytes()
        if content and not content.endswith(b"\n"):
            os.truncate(path, content.rfind(b"\n") + 1)
    return read_rows(path, cut_off=True)


def _row(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = from_json(line.decode())
    except UnicodeDecodeError as error:
        raise HoldfastError(f"{where}: cut or damaged (not UTF-8, byte {error.start})") from error
    except ValueError as error:
        raise HoldfastError(f"{where}: cut or damaged ({error})") from error
    if not isinstance(row, dict):
        raise HoldfastError(f"{where}: not a JSON object")
    return row


def check_arrays(path: Path, names: Collection[str] = ()) -> None:
    """Read an npz file completely, so that its checksums reveal whether it was cut short or changed.

    Raises:
        HoldfastError: it is damaged, or lacks one of the arrays ``names``.
    """
    try:
        with zipfile.ZipFile(path) as arrays:
            damaged = arrays.testzip()
            missing = {f"{name}.npy" for name in names} - set(arrays.namelist())
    except (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise HoldfastError(f"{path}: cannot be read ({error})") from error
    if damaged or missing:
        raise HoldfastError(
            f"{path}: cannot be read ({damaged or min(missing)} is {'damaged' if damaged else 'missing'})"
        )


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that the file is either the old one or the new one, never a part."""
    write_text(path, to_json(value, indent=1) + "\n")


def to_json(value: Any, indent: int | None = None) -> str:
    """Return JSON that every parser accepts: NaN and infinities become null."""
    return json.dumps(finite(value), indent=indent, ensure_ascii=False, allow_nan=False)


def write_text(path: Path, text: str) -> None:
    """Write text so that the file is either the old one or the new one, never a part."""
    partial = path.with_name(path.name + _PARTIAL)
    with partial.open("w", encoding="utf-8") as file:
        file.write(without_keys(text))
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _is_empty(path: Path) -> bool:
    return all(entry.name in _NO_RUN_YET for entry in path.iterdir())


def _read_config(path: Path) -> Any:
    """Return config.json of a run directory; raise if it is none, whatever the flags.

    --overwrite deletes runs, and nothing else.
    """
    try:
        about = read_json(path / "config.json")
    except HoldfastError:
        about = None
    if not isinstance(about, dict) or "command" not in about:
        raise HoldfastError(f"--output {path} is not empty and holds no run", hint="choose another directory")
    return about


def finite(value: Any) -> Any:
    """Return the same nested value with None in place of NaN and infinities, which JSON lacks."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _differences(about: Any, config: RunConfig, command: str) -> list[str]:
    if about.get("command") != command:
        return ["command"]
    new = json.loads(json.dumps(redacted_values(dataclasses.asdict(with_recipe(as_begun(config, about))))))
    old = about.get("config")
    if not isinstance(old, dict):
        return ["config"]
    old = old_values(type(config), redacted_values(old))
    old |= {"date": date_of(about)} if "date" in old else {}
    free = _IRRELEVANT | getattr(config, "continued_with", set())
    return sorted(key for key in new.keys() | old.keys() if key not in free and not _same(new.get(key), old.get(key)))


def _same(new: Any, old: Any) -> bool:
    """Whether two values of a config are equal.

    A key that was taken out of the old one may stand for anything.
    """
    if isinstance(new, str) and isinstance(old, str) and REDACTED in old:
        return re.fullmatch(".+".join(map(re.escape, old.split(REDACTED))), new) is not None
    return bool(new == old)


def _step(line: str) -> int:
    try:
        return int(json.loads(line).get("step", 0))
    except (json.JSONDecodeError, AttributeError):
        return 2**62  # a line cut off by a crash
