"""Data that many processes read and none copies.

    value --parcel--> header + buffers --store--> a file named by its content --SharedData--> any process: mapped, read-only

`parcel` knows the bytes, `store` the driver's files, `data` the handle and what a process has mapped, `arrival` how a file
gets to a machine that does not see the driver's, `guarded` and `shells` how each item gets the data as they were.
"""

from admf_dask.runtime.shared.data import SharedData, travelling, value_of
from admf_dask.runtime.shared.guarded import taking
from admf_dask.runtime.shared.store import SharedStore

__all__ = ["SharedData", "SharedStore", "taking", "travelling", "value_of"]
