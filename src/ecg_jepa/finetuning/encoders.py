"""What a run starts from: a directory, a repository of the Hugging Face Hub, or random weights."""

from pathlib import Path
from typing import Any, NamedTuple

from .._utils.files import RANDOM_PREFIX, TRAINING_INFO_FILE, digest_of, read_json
from .._utils.model_directory import model_directory, weights_digest
from ..model.configuration_ecg_jepa import SIZES, EcgJepaConfig

# What the published sizes share (Weimann & Conrad 2024, section 3).
_PUBLISHED_INPUT = {"sampling_rate": 500, "signal_length": 5000, "patch_size": 25}

# Parts of a configuration that describe the classification, not the encoder.
_OF_THE_HEAD = {
    *("id2label", "label2id", "problem_type", "label_descriptions", "decision_thresholds", "temperature"),
    *("architectures", "transformers_version", "auto_map", "dtype"),
}


class StartingPoint(NamedTuple):
    """
    Weights to start from.

    Args:
        name: as the user named it.
        config: of the model.
        directory: of its weights; `None` for random ones.
        info: `training_info.json`; empty where there is none.
    """

    name: str
    config: EcgJepaConfig
    directory: Path | None
    info: dict[str, Any]

    def digest(self) -> str:
        """Return SHA-256 of the weights; for random weights, of the configuration."""
        if self.directory is not None:
            return weights_digest(self.directory)
        values = self.config.to_dict()
        return digest_of({key: value for key, value in values.items() if key not in _OF_THE_HEAD})

    def describe_encoder(self) -> dict[str, Any]:
        """
        Return the encoder for tables and cards: `path` as named, `digest` of the weights, `size` if it is a published one, and,
        where it was recorded, `objective`, `configuration` (the shipped one, if it was trained by one) and `databases` (name and
        number of records each). The encoder of a probe is the one that the probe was trained on.
        """
        if self.info.get("protocol") in ("linear", "attentive"):
            return self.info["encoder"]
        recorded = {name: self.info.get(name) for name in ("objective", "configuration")}
        if self.info.get("protocol") is not None:  # fine-tuned: not what pre-training left
            recorded = {"objective": self.info["encoder"]["objective"], "configuration": None}
        return {
            "path": self.name,
            "digest": self.digest(),
            "size": published_size(self.config),
            **recorded,
            "databases": [{key: d.get(key) for key in ("name", "records")} for d in self.info.get("databases", [])],
        }


def find_start(name: str, sampling_rate: int = 500, amplitude_free: bool = False) -> StartingPoint:
    """
    Find the weights to start from.

    Args:
        name: a directory, a Hub repository, `random:xs|s|b`, or `random:` with a directory or repository, whose architecture is
            taken without its weights.
        sampling_rate, amplitude_free: of the records (Hz), for `random:xs|s|b`.

    Raises:
        FileNotFoundError: if there is none of that name.
    """
    is_random, model = name.startswith(RANDOM_PREFIX), name.removeprefix(RANDOM_PREFIX)
    if is_random and model in SIZES:
        config = EcgJepaConfig.from_size(model, sampling_rate=sampling_rate, amplitude_free=amplitude_free)
        return StartingPoint(name, config, None, {})
    if is_random and "/" not in model and not Path(model).is_dir():
        sizes = ", ".join(f"{RANDOM_PREFIX}{size}" for size in SIZES)
        raise FileNotFoundError(f"There is no {name}: choose {sizes}, or {RANDOM_PREFIX} with the directory of a model.")
    directory = model_directory(model)
    config = EcgJepaConfig.from_pretrained(directory)
    if is_random:
        return StartingPoint(name, config, None, {})
    path = directory / TRAINING_INFO_FILE
    return StartingPoint(name, config, directory, read_json(path) if path.is_file() else {})


def published_size(config: EcgJepaConfig) -> str | None:
    """Return the published size that a configuration is, down to rate, length and patches; `None` if it is none."""
    for size, numbers in SIZES.items():
        if all(getattr(config, name) == value for name, value in {**numbers, **_PUBLISHED_INPUT}.items()):
            return size
    return None
