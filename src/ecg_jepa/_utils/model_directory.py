"""Where a model lies, and which weights it has."""

import contextlib
import json
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
)

from .files import TRAINING_INFO_FILE, digest_files

_WEIGHTS = "model.safetensors"
_OPTIONAL = ("preprocessor_config.json", TRAINING_INFO_FILE)


def weights_digest(directory: str | Path) -> str:
    """
    SHA-256 of the configuration and weights of a model's directory.

    Raises:
        FileNotFoundError: if it has none.
    """
    weights = sorted(Path(directory).glob("*.safetensors"))
    if not weights:
        raise FileNotFoundError(f"{directory} has no weights (*.safetensors): is it the directory of a model?")
    return digest_files([Path(directory, "config.json"), *weights])


def model_directory(name_or_path: str | Path) -> Path:
    """
    The directory of a model: itself, or where a repository of the Hugging Face Hub is kept after it has been fetched.

    Raises:
        FileNotFoundError: if there is no such directory with a `config.json`, nor such a repository, or it cannot be reached.
    """
    if Path(name_or_path, "config.json").is_file():
        return Path(name_or_path)
    message = f"{name_or_path} is no directory with a config.json"
    if Path(name_or_path).is_dir():
        raise FileNotFoundError(f"{message}: name that of a model.")
    repo_id = str(name_or_path)
    # Where asking the Hub would only take time: names of repositories are ORG/NAME, and a folder ORG is none of it.
    if repo_id.count("/") != 1 or repo_id.startswith((".", "/", "~")) or Path(name_or_path).parent.is_dir():
        raise FileNotFoundError(f"{message}, nor the name of a repository of the Hugging Face Hub (ORG/NAME).")
    try:
        directory = Path(hf_hub_download(repo_id, "config.json")).parent
        try:
            hf_hub_download(repo_id, _WEIGHTS)
        except EntryNotFoundError:
            index = json.loads(Path(hf_hub_download(repo_id, f"{_WEIGHTS}.index.json")).read_text())
            for shard in sorted(set(index["weight_map"].values())):
                hf_hub_download(repo_id, shard)
        for name in _OPTIONAL:
            with contextlib.suppress(EntryNotFoundError):
                hf_hub_download(repo_id, name)
    except HFValidationError:
        raise FileNotFoundError(f"{message}, nor the name of a repository of the Hugging Face Hub.") from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise FileNotFoundError(f"{message}, and cannot be had from the Hugging Face Hub: {reason}") from error
    return directory
