"""Where a model lies, and which weights it has."""

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

from .files import digest_files


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
    path = Path(name_or_path)
    if (path / "config.json").is_file():
        return path
    if path.is_dir():
        raise FileNotFoundError(f"{name_or_path} is no directory with a config.json: name that of a model.")
    try:
        found = Path(snapshot_download(str(name_or_path), allow_patterns=["*.json", "*.safetensors", "*.yaml", "*.md"]))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise FileNotFoundError(
            f"{name_or_path} is no directory with a config.json, and no model of the Hugging Face Hub that can be had: {reason}"
        ) from error
    if not (found / "config.json").is_file():
        raise FileNotFoundError(f"The repository {name_or_path} has no config.json: it is not that of a model.")
    return found
