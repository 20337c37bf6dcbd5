"""The loss passport: does a run pay exactly for what the model has to write?

The rule is that of the rows (docs/roles.md): the response is all that the model has to write after the generation
prompt, up to the end of the stop run. All of ``holdfast audit`` is ``pipeline.audit``, to be read from the top.

    record              rows as a trainer sees them, kinds of findings, what an audit says
    findings            rows -> the table of roles, and cases -> findings; pure functions
    tuned               what `tune` would train on, as rows
    matching            which row of the data a prepared document is, by its ids
    signs               the checks of prepared documents, with roles and by ids alone
    prepared            what another trainer has prepared, as rows
    live                the callback that audits the first batches of a trainer
    summary             an audit -> its summary, and the summary -> lines of a terminal
    pipeline            config -> rows -> audit -> run directory
"""

from typing import TYPE_CHECKING, Any

from holdfast import lazily
from holdfast.config import AuditConfig

if TYPE_CHECKING:
    from holdfast.audit.pipeline import audit

__all__ = ["AuditConfig", "audit"]
_HOMES = {"audit": "holdfast.audit.pipeline"}


def __getattr__(name: str) -> Any:
    return lazily(__name__, _HOMES, name)
