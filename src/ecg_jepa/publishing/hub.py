"""A trained model -> a repository on the Hugging Face Hub; private unless told otherwise."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import HfApi, ModelCard
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from transformers import AutoConfig, AutoModel, AutoModelForPreTraining, AutoModelForSequenceClassification

from ..model.feature_extraction_ecg_jepa import EcgJepaFeatureExtractor

# Of httpx or httpx2, depending on the version of huggingface_hub: the base of its own errors and of those of connections.
_HTTP_ERROR: type[Exception] = HfHubHTTPError.__bases__[0]

CARD, EXTRACTOR, CONFIG = "README.md", "preprocessor_config.json", "config.json"

# What goes to the Hub, of the directory itself: no pickles, no folders (checkpoints of training, pictures), no arrays.
_PUBLISHED = ("*.safetensors", "*.json", "*.jsonl", "*.yaml", "*.md", "*_ecg_jepa.py")
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
_FOREIGN_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.h5", "*.msgpack", "*.onnx")
_AUTO_CLASSES = {
    "EcgJepaModel": AutoModel,
    "EcgJepaEncoderPair": AutoModel,
    "EcgJepaForPreTraining": AutoModelForPreTraining,
    "EcgJepaForSequenceClassification": AutoModelForSequenceClassification,
}


class PushError(OSError):
    """The Hub did not take it; the message says why and what to do."""


@dataclass(frozen=True)
class PushedFile:
    """A file that goes to the Hub."""

    name: str
    size: int  # bytes


def publishable_files(directory: str | Path) -> list[PushedFile]:
    """
    The files of a directory that go to the Hub, after checking that it is complete: configuration, weights as safetensors that
    load and are finite, feature extractor, the code that `auto_map` names, and a card that the Hub can read.

    Raises:
        ValueError: for anything missing or damaged; the message lists all that was found.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise ValueError(f"There is no directory {directory}.")
    faults = [f"{name} is missing" for name in (CONFIG, EXTRACTOR, CARD) if not (directory / name).is_file()]
    if not list(directory.glob("*.safetensors")):
        faults.append("weights are missing (no .safetensors)")
    foreign = sorted(path.name for pattern in _FOREIGN_WEIGHTS for path in directory.glob(pattern))
    if foreign:
        faults.append(f"weights that are no safetensors: {', '.join(foreign)}")
    if not faults:
        faults = _faults_of_content(directory)
    if faults:
        raise ValueError(f"{directory} cannot be published: {'; '.join(faults)}.")
    names = sorted({path.name for pattern in _PUBLISHED for path in directory.glob(pattern)})
    return [PushedFile(name, (directory / name).stat().st_size) for name in names]


def _faults_of_content(directory: Path) -> list[str]:
    faults = []
    try:
        config = AutoConfig.from_pretrained(directory)
        auto_class: Any = _AUTO_CLASSES[(config.architectures or [""])[0]]
        auto_class.from_pretrained(directory)
        EcgJepaFeatureExtractor.from_pretrained(directory)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        faults.append(f"it does not load ({type(error).__name__}: {error})")
    else:
        modules = {reference.split(".")[0] for reference in (getattr(config, "auto_map", None) or {}).values()}
        lacking = sorted(module for module in modules if not (directory / f"{module}.py").is_file())
        if lacking or not modules:
            files = ", ".join(f"{module}.py" for module in lacking) or "an auto_map"
            faults.append(f"its code is missing ({files}): save it with save_pretrained of this package")
    try:
        ModelCard.load(directory / CARD)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        faults.append(f"the metadata of {CARD} is not valid ({type(error).__name__}: {error})")
    return faults


def push(directory: str | Path, repo_id: str, public: bool = False, token: str | None = None) -> str:
    """
    Upload a directory in one commit: a push that breaks off leaves nothing half-done, and the next one completes it.

    Args:
        directory: of [`publishable_files`].
        repo_id: ORG/NAME. It is created if it is not there.
        public: for everybody to see; otherwise private.
        token: with write access; default: that of `hf auth login` or HF_TOKEN.

    Returns:
        The address of the repository.

    Raises:
        ValueError: if the directory or the name cannot be published.
        PushError: if the repository exists with another visibility, the token lacks rights, or the connection fails.
    """
    files = publishable_files(directory)
    # Weights of an earlier push, in other shards, go.
    return upload(directory, repo_id, "model", public, token, [file.name for file in files], delete=_WEIGHTS)


def upload(
    directory: str | Path,
    repo_id: str,
    repo_type: Literal["model", "space"],
    public: bool,
    token: str | None,
    patterns: Sequence[str] | None = None,
    delete: Sequence[str] = (),
) -> str:
    """
    Create a repository if it is not there, and upload a directory, or what of it fits `patterns`, in one commit, in which what
    fits `delete` goes; as [`push`] says.
    """
    api = HfApi(token=token)
    wanted = "public" if public else "private"
    try:
        try:
            is_private = api.repo_info(repo_id, repo_type=repo_type).private
        except RepositoryNotFoundError:
            sdk = "gradio" if repo_type == "space" else None
            address = str(api.create_repo(repo_id, repo_type=repo_type, private=not public, exist_ok=True, space_sdk=sdk))
            is_private = api.repo_info(repo_id, repo_type=repo_type).private
        else:
            address = f"{api.endpoint}/{'spaces/' if repo_type == 'space' else ''}{repo_id}"
        # create_repo ignores what it is told of a repository that exists.
        if bool(is_private) is public:
            raise PushError(
                f"{repo_id} exists and is {'private' if is_private else 'public'}, but is to be {wanted}: nothing was uploaded. "
                f"Change that on its page, choose another name, or {'leave out' if public else 'add'} --public."
            )
        api.upload_folder(
            repo_id=repo_id,
            repo_type=repo_type,
            folder_path=directory,
            allow_patterns=None if patterns is None else list(patterns),
            delete_patterns=list(delete),
            commit_message=f"Upload {repo_type}",
        )
    except HFValidationError as error:
        raise ValueError(f"{repo_id!r} is no name for a repository: {error}") from error
    except LocalTokenNotFoundError as error:
        raise PushError("No token: log in with `hf auth login`, or set HF_TOKEN to one with write access.") from error
    except OfflineModeIsEnabled as error:
        raise PushError(f"The Hub is switched off: unset HF_HUB_OFFLINE ({error}).") from error
    except HfHubHTTPError as error:
        raise PushError(_explain(error, repo_id)) from error
    except (_HTTP_ERROR, ConnectionError) as error:
        raise PushError(
            f"The connection to {api.endpoint} failed ({type(error).__name__}: {error}). Nothing is half-done: run the same "
            "command again."
        ) from error
    return address


def _explain(error: HfHubHTTPError, repo_id: str) -> str:
    status = error.response.status_code if error.response is not None else None
    if status == 401:
        return f"The Hub does not know the token (or there is none): log in with `hf auth login`. It said: {error}"
    if status == 403:
        owner = repo_id.split("/")[0]
        return f"The token may not write to {repo_id}: use one with write access to {owner}. The Hub said: {error}"
    return f"The Hub refused {repo_id} (HTTP {status}); nothing is half-done: {error}"


def describe(files: list[PushedFile]) -> str:
    """A line per file, with its size."""
    return "\n".join(f"  {file.size / 1e6:9.3f} MB  {file.name}" for file in files)
