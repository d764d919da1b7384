"""Directories of models, here or on the Hugging Face Hub."""

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

from .files import TRAINING_INFO_FILE, digest_files


def weights_digest(directory: str | Path) -> str:
    """Return the SHA-256 of the configuration and weights in a directory. Raises `FileNotFoundError` if it has no weights."""
    weights = sorted(Path(directory).glob("*.safetensors"))
    if not weights:
        raise FileNotFoundError(f"{directory} has no weights (*.safetensors): is it the directory of a model?")
    return digest_files([Path(directory, "config.json"), *weights])


def model_directory(name_or_path: str | Path) -> Path:
    """Return a model's directory: itself, or the fetched copy of a Hub repository. Raises `FileNotFoundError` for neither."""
    directory, repo_id = Path(name_or_path), str(name_or_path)
    message = f"{name_or_path} is no directory with a config.json"
    if (directory / "config.json").is_file():
        return directory
    if directory.is_dir():
        raise FileNotFoundError(f"{message}: name that of a model.")
    try:
        # A path that cannot be ORG/NAME, or whose folder exists, is a mistake that the Hub need not be asked about.
        if repo_id.count("/") != 1 or repo_id.startswith((".", "/", "~")) or directory.parent.is_dir():
            raise HFValidationError
        # Without the folders of a repository, which hold what is not needed to use the model.
        fetched = ["config.json", "model.safetensors*", "model-*.safetensors", "preprocessor_config.json", TRAINING_INFO_FILE]
        directory = Path(snapshot_download(repo_id, allow_patterns=fetched))
    except HFValidationError:
        raise FileNotFoundError(f"{message}, nor the name of a repository of the Hugging Face Hub (ORG/NAME).") from None
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise FileNotFoundError(f"{message}, and cannot be had from the Hugging Face Hub: {reason}") from error
    if not (directory / "config.json").is_file():
        raise FileNotFoundError(f"{message}, and the repository of that name has none: name that of a model.")
    return directory
