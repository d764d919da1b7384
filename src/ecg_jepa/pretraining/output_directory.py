"""The output directory of a run: whether it may be used, whether its run is finished, what is removed from it."""

from pathlib import Path

from .._utils.files import TRAINING_INFO_FILE, read_json
from .._utils.model_directory import weights_digest
from .._utils.run_directory import MODEL_FILES, check_own, clear, left_in
from .._utils.settings import write_yaml
from ..data.records import find_database
from .checkpointing import Checkpoints
from .recipe import PretrainingRecipe

METRICS_LOG = "metrics.jsonl"

# Patterns of the files of a finished run, and of those that a run writes on the way.
_EXPORTED = (TRAINING_INFO_FILE, *(f"pretraining/{name}" for name in MODEL_FILES), "plots/*.png", *MODEL_FILES)
_WRITTEN = (*_EXPORTED, METRICS_LOG, "checkpoint-*", "unfinished-checkpoint-*", "abandoned-checkpoint-*")


def is_finished(recipe: PretrainingRecipe) -> bool:
    """Return whether the directory holds this very run, exported: a cluster may start it again after its end."""
    path = Path(recipe.output_dir, TRAINING_INFO_FILE)
    if recipe.resume_from_checkpoint != "latest" or not path.is_file():
        return False
    info = read_json(path)
    settings = info.get("settings", {})
    if any(settings.get(name) != value for name, value in recipe.training_settings().items()):
        return False
    try:
        weights = recipe.database_weights()
        records = {name: (weight, find_database(recipe.data_dir, name).info.identity) for name, weight in weights.items()}
        trained_on = {database["name"]: (database["weight"], database["digest"]) for database in info["databases"]}
        return records == trained_on and bool(info["weights"] == weights_digest(recipe.output_dir))
    except FileNotFoundError:  # records or weights are missing, which is reported where they are needed
        return False


def check_directory(recipe: PretrainingRecipe) -> None:
    """
    Check that a run may use its directory, without touching it.

    Raises:
        FileExistsError: if it holds another run, unless this one resumes from it or replaces it.
    """
    directory, resumed = Path(recipe.output_dir), recipe.resume_from_checkpoint
    if (directory / "metrics.json").is_file():
        raise FileExistsError(f"{directory} holds a classifier and its results: choose another --output_dir for pre-training.")
    check_own(directory, (*_EXPORTED, METRICS_LOG))
    if recipe.overwrite_output_dir:
        return
    if resumed == "latest":
        # A run that was killed before its first checkpoint starts again; a model without checkpoints is not replaced.
        has_checkpoints = any(directory.glob("checkpoint-*"))
        left = [] if has_checkpoints else left_in(directory, ("*.safetensors", TRAINING_INFO_FILE, "config.json"))
        remedy = "it has no checkpoint to go on from: "
    else:
        resumes_here = resumed is not None and Path(resumed).resolve().parent == directory.resolve()
        left = [] if resumes_here else left_in(directory, _WRITTEN)
        remedy = "go on with --resume_from_checkpoint latest, "
    if left:
        names = ", ".join(str(path.relative_to(directory)) for path in left[:3]) + (", ..." if len(left) > 3 else "")
        raise FileExistsError(
            f"{directory} holds a run ({names}): {remedy}replace it with --overwrite_output_dir, or choose another --output_dir."
        )


def prepare_directory(recipe: PretrainingRecipe, checkpoints: Checkpoints, start: int) -> None:
    """Write the configuration of a run that starts at step `start`, and remove what earlier runs exported."""
    directory = Path(recipe.output_dir)
    clear(directory, _EXPORTED[:-1])  # the last one, training_config.yaml, marks the directory as a run's until it is replaced
    if recipe.overwrite_output_dir:
        clear(directory, (METRICS_LOG, "abandoned-checkpoint-*"))
    checkpoints.clear(start, remove=recipe.overwrite_output_dir)
    # Whoever trains with this configuration again means neither this checkpoint nor this directory's old content.
    once = ("resume_from_checkpoint", "allow_changes", "overwrite_output_dir")
    write_yaml(recipe, directory / "training_config.yaml", leave_out=once)
