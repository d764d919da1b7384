"""Arrays saved with `numpy.save`."""

from pathlib import Path

import numpy as np

from .ecg import Ecg, ReadEcg, RecordError, check_record_size, plain_file_size, reading


def read_npy(path: Path) -> ReadEcg:
    """Read an array (leads, samples), which says nothing else of itself. Raises `RecordError`."""
    plain_file_size(path, path, at_most=None)
    with reading(path, "signal"):
        # Mapped: a damaged header may ask for more memory than the file has bytes.
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    if values.ndim != 2 or values.dtype.kind not in "iuf" or not values.size:
        raise RecordError(path, "unreadable signal", f"{values.dtype} {values.shape}, expected numbers (leads, samples)")
    check_record_size(path, *values.shape)
    return Ecg(np.array(values, dtype=np.float64), None, None, None), None
