"""The whole of ``holdfast audit``, top to bottom: config -> rows -> audit -> what is said, and a run directory."""

from __future__ import annotations

import sys
from typing import Any

from holdfast import runs
from holdfast.audit import findings
from holdfast.audit.prepared import prepared
from holdfast.audit.record import Material
from holdfast.audit.summary import row_of, summary_of, told
from holdfast.audit.tuned import tell_without_effect, tuned
from holdfast.config import AuditConfig
from holdfast.data.read import source_digest


def audit(config: AuditConfig) -> dict[str, Any]:
    """Say what a training pays for, by role, and what is wrong with that. Loads no weights.

    Args:
        config: see ``holdfast.config.AuditConfig``.

    Returns:
        The summary: per role the targets, those that are paid and their share of the weighted targets; the findings,
        each with its count, first rows, an example and a cure; ``exit_code``, 1 if there is one. With ``output`` it is
        written there, with a row for every place.

    Raises:
        HoldfastError: bad input, such as a file that cannot be read; nothing has been written then.

    >>> from holdfast.audit import AuditConfig, audit
    >>> summary = audit(AuditConfig(model="pocket", data="pocket:instructions", weights={"eos": 0.0}, limit=40,
    ...     json=True))
    >>> [finding["kind"] for finding in summary["findings"]]
    ['stop-never-paid']
    """
    tell_without_effect(config)
    if config.output and not config.dry_run:
        with runs.command(config, "audit") as run:
            run.check_data(lambda: _digest(config))
            summary = run.finished() or _written(run, config)
    else:
        summary, _ = _judged(config, _read(config))
    if not config.json:
        print("\n".join(told(summary, colour=sys.stdout.isatty())))
    return summary


def _read(config: AuditConfig) -> Material:
    """The rows to audit, and what they are judged by."""
    if config.prepared is not None:
        return prepared(config)
    return tuned(config)


def _judged(config: AuditConfig, material: Material) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The summary of an audit, and its rows."""
    result = findings.audit(material.rows, material.context, material.checks, material.unseen, material.cases)
    return summary_of(config, result, material), [row_of(case, material) for case in result.cases]


def _written(run: runs.Run, config: AuditConfig) -> dict[str, Any]:
    material = _read(config)
    summary, rows = _judged(config, material)
    run.open({"data_digest": _digest(config), **material.resolved})
    run.rows.unlink(missing_ok=True)  # of an attempt that was killed
    for row in rows:
        run.append(row)
    return run.finish(summary)


def _digest(config: AuditConfig) -> list[str | None]:
    return [source_digest(source) if source else None for source in (config.data, config.prepared)]
