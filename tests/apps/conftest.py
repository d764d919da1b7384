"""A classifier of two layers and records to show it."""

from pathlib import Path

import numpy as np
import pytest
from raw_databases import ecg
from tiny_classifier import save_classifier


@pytest.fixture(scope="session")
def classifier_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_classifier(tmp_path_factory.mktemp("classifier") / "model")


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    """A record whose file says leads and unit, but no rate."""
    path = tmp_path / "record.csv"
    names = ",".join(f"{name} (mV)" for name in ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"))
    np.savetxt(path, ecg(5000).T / 1000, delimiter=",", header=names, comments="", fmt="%.4f")
    return path
