"""Pushing directories to the Hugging Face Hub; private unless asked otherwise."""

from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from transformers import AutoConfig

from ..model import modeling_ecg_jepa
from ..model.feature_extraction_ecg_jepa import EcgJepaFeatureExtractor

# The base class of connection errors, of httpx or httpx2, depending on the version of huggingface_hub.
_HTTP_ERROR: type[Exception] = HfHubHTTPError.__bases__[0]

CARD, EXTRACTOR, CONFIG = "README.md", "preprocessor_config.json", "config.json"

# Files of a directory that go to the Hub: no pickles, arrays or folders (checkpoints, plots).
_CODE = "*_ecg_jepa.py"
_PUBLISHED = ("*.safetensors", "*.json", "*.jsonl", "*.yaml", "*.md", _CODE)
# Files of an earlier push that are removed, unless the new one has them: weights in other shards, other examples.
_REPLACED = {"model": ("*.safetensors", "*.safetensors.index.json"), "space": ("model/*", "examples/*")}
_FOREIGN_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.h5", "*.msgpack", "*.onnx")


class PushError(OSError):
    """The Hub did not accept the files; the message says why and what to do."""


def publishable_files(directory: str | Path) -> dict[str, Path]:
    """
    Return name and path of the files of a directory that go to the Hub, with the package's code if there is none beside the
    weights.
    Raises `ValueError`, which lists all faults, if the directory is not complete: configuration, safetensors that load and are
    finite, feature extractor, the code that `auto_map` names, a card that the Hub can read.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise ValueError(f"There is no directory {directory}.")
    code = list(directory.glob(_CODE)) or list(Path(modeling_ecg_jepa.__file__).parent.glob(_CODE))
    faults = [f"{name} is missing" for name in (CONFIG, EXTRACTOR, CARD) if not (directory / name).is_file()]
    if not list(directory.glob("*.safetensors")):
        faults.append("weights are missing (no .safetensors)")
    if foreign := sorted(path.name for pattern in _FOREIGN_WEIGHTS for path in directory.glob(pattern)):
        faults.append(f"weights that are no safetensors: {', '.join(foreign)}")
    faults = faults or _faults_of_content(directory, {path.stem for path in code})
    if faults:
        raise ValueError(f"{directory} cannot be published: {'; '.join(faults)}.")
    paths = [*code, *(path for pattern in _PUBLISHED for path in directory.glob(pattern))]
    return dict(sorted((path.name, path) for path in paths))


def _faults_of_content(directory: Path, code: set[str]) -> list[str]:
    faults = []
    try:
        config = AutoConfig.from_pretrained(directory)
        getattr(modeling_ecg_jepa, (config.architectures or [""])[0]).from_pretrained(directory)
        EcgJepaFeatureExtractor.from_pretrained(directory)
    except (OSError, ValueError, RuntimeError, AttributeError) as error:
        faults.append(f"it does not load ({type(error).__name__}: {error})")
    else:
        modules = {reference.split(".")[0] for reference in (getattr(config, "auto_map", None) or {}).values()}
        if not modules or not modules <= code:
            files = ", ".join(f"{module}.py" for module in sorted(modules - code)) or "an auto_map"
            faults.append(f"its code is missing ({files}): save it with save_pretrained of this package")
    try:
        ModelCard.load(directory / CARD)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        faults.append(f"the metadata of {CARD} is not valid ({type(error).__name__}: {error})")
    return faults


def upload(
    files: Mapping[str, Path], repo_id: str, repo_type: Literal["model", "space"], public: bool = False, token: str | None = None
) -> str:
    """
    Upload files (name there -> path) in one commit to a repository ORG/NAME, which is created if it is not there, and return its
    address: a push that breaks off leaves nothing half-done. The token is by default that of `hf auth login` or HF_TOKEN.

    Raises `ValueError` if the name is none of a repository, and `PushError` if it exists with another visibility, the token lacks
    rights, or the connection fails.
    """
    api = HfApi(token=token)
    try:
        try:
            is_private = api.repo_info(repo_id, repo_type=repo_type).private
        except RepositoryNotFoundError:
            sdk = "gradio" if repo_type == "space" else None
            api.create_repo(repo_id, repo_type=repo_type, private=not public, exist_ok=True, space_sdk=sdk)
            is_private = api.repo_info(repo_id, repo_type=repo_type).private
        if bool(is_private) is public:  # create_repo does not change the visibility of a repository that exists
            now, wanted = ("private", "public") if public else ("public", "private")
            raise PushError(
                f"{repo_id} exists and is {now}, but is to be {wanted}: nothing was uploaded. Change that on its page, choose "
                f"another name, or {'leave out' if public else 'add'} --public."
            )
        left = sorted(set(api.list_repo_files(repo_id, repo_type=repo_type)).difference(files))
        replaced = [name for name in left if any(fnmatch(name, pattern) for pattern in _REPLACED[repo_type])]
        operations: list[Any] = [*(CommitOperationAdd(*file) for file in files.items()), *map(CommitOperationDelete, replaced)]
        api.create_commit(repo_id, operations, repo_type=repo_type, commit_message=f"Upload {repo_type}")
    except HFValidationError as error:
        raise ValueError(f"{repo_id!r} is no name for a repository: {error}") from error
    except (LocalTokenNotFoundError, OfflineModeIsEnabled, _HTTP_ERROR, ConnectionError) as error:
        raise PushError(f"{_explain(error, repo_id)} The Hub's client says: {error}") from error
    return f"{api.endpoint}/{'spaces/' if repo_type == 'space' else ''}{repo_id}"


def _explain(error: Exception, repo_id: str) -> str:
    if isinstance(error, LocalTokenNotFoundError):
        return "No token: log in with `hf auth login`, or set HF_TOKEN to one with write access."
    if isinstance(error, OfflineModeIsEnabled):
        return "The Hub is switched off: unset HF_HUB_OFFLINE."
    if not isinstance(error, HfHubHTTPError):
        return f"The connection failed ({type(error).__name__}). Nothing is half-done: run the same command again."
    status = error.response.status_code if error.response is not None else None
    reasons = {
        401: "The Hub does not know the token (or there is none): log in with `hf auth login`.",
        403: f"The token may not write to {repo_id}: use one with write access to {repo_id.split('/')[0]}.",
    }
    return reasons.get(status or 0, f"The Hub refused {repo_id} (HTTP {status}); nothing is half-done.")
