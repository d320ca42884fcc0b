"""What users call to search, train and test fidelity: each writes the report of its run when it ends."""

from __future__ import annotations

from functools import partial, update_wrapper

from nas.views.report import write_report
from nas.workflows import search, train
from nas.workflows.fidelity import auditing

run_search = update_wrapper(partial(search.run_search, report=write_report), search.run_search)
resume_search = update_wrapper(partial(search.resume_search, report=write_report), search.resume_search)
run_training = update_wrapper(partial(train.run_training, report=write_report), train.run_training)
run_audit = update_wrapper(partial(auditing.run_audit, report=write_report), auditing.run_audit)
