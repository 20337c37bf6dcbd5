"""The loss passport: does a run pay exactly for what the model has to write?

The rule is that of the rows (docs/roles.md): the response is all that the model has to write after the generation
prompt, up to the end of the stop run. All of ``holdfast audit`` is ``pipeline.audit``, to be read from the top.

    record              rows as a trainer sees them, kinds of findings, what an audit says
    findings            rows -> the table of roles, and cases -> findings; pure functions
    pipeline            what `tune` would train on, as rows -> the audit
"""
