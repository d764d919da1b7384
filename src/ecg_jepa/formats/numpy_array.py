"""Arrays saved with `numpy.save`."""

from pathlib import Path

import numpy as np

from .ecg import ReadEcg, RecordError, as_read, check_record_size, reading


def read_npy(path: Path) -> ReadEcg:
    """Read an array (leads, samples), which says nothing else of itself. Raises `RecordError`."""
    with reading(path, "signal"):
        values = np.load(path, mmap_mode="r", allow_pickle=False)  # mapped: a damaged header may ask for any memory
    if values.ndim != 2 or values.dtype.kind not in "iuf" or not values.size:
        raise RecordError(path, "unreadable signal", f"{values.dtype} {values.shape}, expected numbers (leads, samples)")
    check_record_size(path, *values.shape)
    return as_read(path, np.array(values, dtype=np.float64))
