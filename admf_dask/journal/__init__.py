"""The durable record of a run, and going on from it."""

from __future__ import annotations

from admf_dask.journal.call import Call
from admf_dask.journal.journal import Journal, Record, as_journal
from admf_dask.journal.status import RunStatus

__all__ = ["Call", "Journal", "Record", "RunStatus", "as_journal"]
