"""Shared fixtures: tiny models, a small synthetic database in PTB-XL's layout, and the real records where they are."""

import importlib.util
import os
import site
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

# Before torch and datasets are imported: one thread per worker, no network, no progress bars.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"

import huggingface_hub
import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from fake_hub import FakeHub

from ecg_jepa import EcgJepaConfig
from ecg_jepa.data.records import PreparedDatabase, find_database
from ecg_jepa.data.synthetic import Synthetic, generate_database

REPOSITORY = Path(__file__).parents[1]
DATA_DIR = Path(os.environ.get("ECG_JEPA_DATA_DIR", REPOSITORY.parent / "shared" / "data"))


@pytest.fixture(autouse=True)
def _same_start() -> None:
    """
    One seed, one thread and PyTorch's own products for every test: what ran before it may have set others, and rounding differs
    by that.
    """
    torch.manual_seed(0)
    torch.set_num_threads(1)
    torch.backends.mkldnn.matmul.fp32_precision = "none"


@pytest.fixture
def tiny_config() -> EcgJepaConfig:
    """Two layers of width 32 over 20 patches."""
    return EcgJepaConfig(**tiny_sizes(), signal_length=500)


def tiny_sizes() -> dict[str, int]:
    encoder = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    return encoder | {"pred_hidden_size": 16, "pred_num_hidden_layers": 1, "pred_num_attention_heads": 2}


@pytest.fixture
def signal() -> torch.Tensor:
    """Two normalised records of 500 samples."""
    return torch.randn(2, 12, 500)


@pytest.fixture(scope="session")
def raw_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 synthetic records in PTB-XL's layout, at both rates."""
    return generate_database(tmp_path_factory.mktemp("raw"), 120, seed=3, with_low_rate=True)


@pytest.fixture(scope="session")
def prepared_dir(raw_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the prepared database `synthetic`."""
    directory = tmp_path_factory.mktemp("prepared")
    Synthetic(data_dir=str(raw_database)).prepare(directory)
    return directory


@pytest.fixture(scope="session")
def prepared(prepared_dir: Path) -> PreparedDatabase:
    return find_database(prepared_dir)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real records; skips where it is absent."""
    if not DATA_DIR.is_dir():
        pytest.skip(f"no real records in {DATA_DIR}")
    return DATA_DIR


@pytest.fixture
def run_script(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ModuleType]:
    """Run `training/<name>.py` with flags, in this process; every run gets a fresh state of Accelerate."""

    def run(name: str, *flags: object) -> ModuleType:
        path = REPOSITORY / "training" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(f"training_{name}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        AcceleratorState._reset_state(True)
        PartialState._reset_state()
        monkeypatch.setattr(sys, "argv", [str(path), *map(str, flags)])
        module.main()
        return module

    return run


@pytest.fixture(scope="session")
def foreign_python(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run code in an environment with everything that is installed here but this package and, unless `with_wfdb`, wfdb."""
    packages, wfdb = tmp_path_factory.mktemp("packages"), tmp_path_factory.mktemp("wfdb")
    for folder in site.getsitepackages():
        for path in Path(folder).iterdir():
            name = path.name.lstrip("_")
            if not name.startswith("ecg_jepa") and path.suffix != ".pth":
                ((wfdb if name.startswith("wfdb") else packages) / path.name).symlink_to(path)
    environment = os.environ | {
        "HF_MODULES_CACHE": str(tmp_path_factory.mktemp("modules")),
        "HF_HUB_CACHE": str(tmp_path_factory.mktemp("cache")),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }

    def run(code: str, with_wfdb: bool = False, **variables: str) -> subprocess.CompletedProcess[str]:
        folders, hidden = ([packages, wfdb], ["ecg_jepa"]) if with_wfdb else ([packages], ["ecg_jepa", "wfdb"])
        check = f"from importlib.util import find_spec\nassert not any(map(find_spec, {hidden}))\n"
        variables["PYTHONPATH"] = os.pathsep.join(map(str, folders))
        # -S: the site module would read .pth files, which lead to the package.
        command = [sys.executable, "-S", "-c", check + code]
        return subprocess.run(command, capture_output=True, text=True, env=environment | variables, stdin=subprocess.DEVNULL)

    return run


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A stand-in for the Hub that this process uses as if it were the Hub."""
    hub = FakeHub()
    template = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
    constants = {
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
        "ENDPOINT": hub.address,
        "HUGGINGFACE_CO_URL_TEMPLATE": template,
    }
    for name, value in constants.items():
        monkeypatch.setattr(huggingface_hub.constants, name, value)
    huggingface_hub.close_session()  # which may know that the tests are offline
    yield hub
    hub.shutdown()
    huggingface_hub.close_session()
