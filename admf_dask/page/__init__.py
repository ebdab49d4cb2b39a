"""The drawing of runs: an `Update` of `admf_dask.progress.digest` after the other becomes a `RunView`, views become a page.

`view` knows a run, `words` and `figures` draw it, `page` puts that together. No cluster in here: the Dask dashboard, the server
over a journal and the report of a result all show the same page.
"""
