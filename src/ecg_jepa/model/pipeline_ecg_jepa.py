"""Records -> labels with scores: `pipeline("ecg-classification", model=DIRECTORY)`."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from transformers import Pipeline

from ..formats.ecg import read_ahead
from ..formats.read import as_ecg, describes_itself
from .signal_processing_ecg_jepa import UNKNOWN_UNIT

_SIGNAL_KEYS = ("signal", "array", "raw")
_DECLARATIONS = ("sampling_rate", "lead_names", "unit")

# What a record must say, or whoever passes it, and of which values.
_NEEDED = {"sampling_rate": "Hz", "unit": '"mV", "uV", "V" or "nV"'}

_FUNCTIONS = {"multi_label_classification": "sigmoid", "single_label_classification": "softmax"}


class EcgClassificationPipeline(Pipeline):
    """
    Classifies ECG records with an `EcgJepaForSequenceClassification`.

    A record is

    - the path of a file in any format that `read_ecg` reads (WFDB, NumPy, DICOM, HL7 aECG, GE MUSE XML, Philips XML, SCP-ECG,
      EDF, BDF, CSV), which as a rule says rate, leads and unit itself;
    - an array, tensor or nested list (leads, samples) with `sampling_rate` in Hz and `unit` ("mV", "uV", "V", "nV"), and
      `lead_names` unless its rows are the model's leads in the model's order;
    - an `Ecg` or a `wfdb.Record`, which say all this themselves;
    - a dict with one of these as `"path"` or `"signal"` (also `"array"` or `"raw"`) and its own declarations;
    - or a list of these, an array (records, leads, samples), a generator, or a `datasets.Dataset` with such columns, of which
      others are not looked at.

    The feature extractor brings it into the form that training used and cuts it into crops, whose logits are averaged. What
    does not fit raises a `ValueError` that says what is missing; nothing is padded or guessed.

    Args of a call (or of the pipeline, as defaults):
        sampling_rate, lead_names, unit: of records that do not say so themselves; what contradicts a record is refused.
        check_plausibility (`bool`, *optional*): whether records that cannot be ECGs in their unit, or are shorter than the crops
            of training, raise; default: they do.
        function_to_apply (`str`, *optional*): makes scores of logits: "sigmoid", "softmax" or "none"; default: what the model's
            `problem_type` says.
        top_k (`int`, *optional*): keep so many labels; `None`, the default, keeps all.
        threshold (`float`, *optional*): keep labels with at least this score; `None`, the default, keeps all.
        decide (`bool`, *optional*): add to each label the `"threshold"` that the checkpoint has for its probability, and the
            `"decision"`: whether it is reached. Both are `None` for a label without one.
        batch_size (`int`, *optional*): records that run through the model together; those of one length are.

    Returns:
        For a record a list of `{"label": ..., "score": ...}`, highest score first; for several a list of such lists. Scores
        are sigmoids for `problem_type="multi_label_classification"`, a softmax for `"single_label_classification"`, of logits
        divided by the `temperature` of the model's configuration, if it has one.
    """

    _load_processor = False
    _load_image_processor = False
    _load_feature_extractor = True
    _load_tokenizer = False

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        # By name: the code of a checkpoint and the installed package each have a class of their own.
        check_model = getattr(self.feature_extractor, "check_model", None)
        if check_model is not None:
            check_model(self.model.config)

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """See the class."""
        rows = _rows_of_dataset(inputs)
        if rows is not None:
            found = super().__call__(rows, **kwargs)
            return list(found) if hasattr(inputs, "__len__") else found
        is_stack = isinstance(inputs, (np.ndarray, torch.Tensor)) and inputs.ndim == 3
        if is_stack or (isinstance(inputs, tuple) and not describes_itself(inputs)):
            inputs = list(inputs)
        if isinstance(inputs, list) and not inputs:
            return []
        if isinstance(inputs, list) and isinstance(inputs[0], (list, tuple)) and not describes_itself(inputs[0]):
            first = np.asarray(inputs[0], dtype=object)
            if first.ndim == 1 and all(isinstance(value, (int, float)) for value in inputs[0]):
                inputs = _as_array(inputs)  # one record, of which each list is a lead
        return super().__call__(inputs, **kwargs)

    def _sanitize_parameters(
        self,
        sampling_rate: float | None = None,
        lead_names: Sequence[str] | None = None,
        unit: str | None = None,
        check_plausibility: bool | None = None,
        function_to_apply: str | None = None,
        top_k: int | str | None = "",
        threshold: float | str | None = "",
        decide: bool | None = None,
        **unknown: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """As the base class asks for. An empty text is no value: `None` is one, with which a call undoes a default."""
        if unknown:
            raise ValueError(
                f"Unknown arguments {', '.join(unknown)}: expected sampling_rate, lead_names, unit, "
                "check_plausibility, function_to_apply, top_k, threshold, decide, batch_size."
            )
        if top_k not in ("", None) and (isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1):
            raise ValueError(f"top_k={top_k!r} must be a whole number of at least 1, or None for all labels.")
        if threshold not in ("", None) and not (isinstance(threshold, (int, float)) and math.isfinite(threshold)):
            raise ValueError(f"threshold={threshold!r} must be a number, or None for none.")
        functions = (*_FUNCTIONS.values(), "none")
        if function_to_apply is not None and str(function_to_apply).lower() not in functions:
            raise ValueError(f"function_to_apply={function_to_apply!r} must be one of {', '.join(functions)}, or None.")
        preprocess = {"sampling_rate": sampling_rate, "lead_names": lead_names, "unit": unit}
        preprocess["check_plausibility"] = check_plausibility
        postprocess: dict[str, Any] = {"decide": decide}
        postprocess["function_to_apply"] = None if function_to_apply is None else str(function_to_apply).lower()
        limits = {"top_k": top_k, "threshold": threshold}
        return (
            {name: value for name, value in preprocess.items() if value is not None},
            {},
            {name: value for name, value in postprocess.items() if value is not None}
            | {name: value for name, value in limits.items() if value != ""},
        )

    def preprocess(self, input_: Any, check_plausibility: bool = True, **declared: Any) -> dict[str, torch.Tensor]:
        """A record -> `input_values` (1, leads, samples), or (1, crops, leads, samples) if the extractor crops."""
        if isinstance(input_, Mapping):
            input_, declared = self._unpack(input_, declared)
        if describes_itself(input_):
            ecg = as_ecg(input_, **declared)
            unit = ecg.unit or (UNKNOWN_UNIT if declared.get("unit") == UNKNOWN_UNIT else None)
            input_, declared = ecg.signal, {"sampling_rate": ecg.sampling_rate, "lead_names": ecg.lead_names, "unit": unit}
        if isinstance(input_, (list, tuple)):
            input_ = _as_array(input_)
        if not isinstance(input_, (np.ndarray, torch.Tensor)):
            raise ValueError(
                "A record must be the path of a file, an array (leads, samples), an Ecg, a wfdb.Record or a dict, but got "
                f"{type(input_).__name__}."
            )
        if input_.ndim != 2:
            raise ValueError(f"A record must be an array (leads, samples), but its shape is {tuple(input_.shape)}.")
        missing = {name: values for name, values in _NEEDED.items() if declared.get(name) is None}
        if missing:
            how = ", ".join(f"{name}=... ({values})" for name, values in missing.items())
            raise ValueError(f"The record does not say its {' and '.join(missing)}: pass {how}.")
        return dict(self.feature_extractor(input_, **declared, return_tensors="pt", check_plausibility=check_plausibility))

    def _unpack(self, record: Mapping[str, Any], declared: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """The path or array of a dict, and what it declares; its own declarations win."""
        sources = [key for key in ("path", *_SIGNAL_KEYS) if key in record]
        unknown = [key for key in record if key not in (*sources, *_DECLARATIONS)]
        if len(sources) != 1 or unknown:
            raise ValueError(
                f"A record as a dict has 'path' or 'signal', and {', '.join(_DECLARATIONS)}; this one has "
                f"{', '.join(map(str, record))}."
            )
        own = {name: record[name] for name in _DECLARATIONS if record.get(name) is not None}
        return record[sources[0]], {**declared, **own}

    def get_iterator(
        self,
        inputs: Iterable[Any],
        num_workers: int,
        batch_size: int,
        preprocess_params: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> Iterator[list[dict[str, Any]]]:
        """As the base class, but only records of one shape share a batch: the base class would pad them with zeros."""
        waiting: list[torch.Tensor] = []
        for read in read_ahead(partial(self.preprocess, **preprocess_params), inputs, batch_size):
            values = read["input_values"]
            if waiting and (len(waiting) == batch_size or values.shape != waiting[0].shape):
                yield from self._classify(waiting, forward_params, postprocess_params)
                waiting = []
            waiting.append(values)
        yield from self._classify(waiting, forward_params, postprocess_params)

    def _classify(
        self, records: list[torch.Tensor], forward_params: dict[str, Any], postprocess_params: dict[str, Any]
    ) -> Iterator[list[dict[str, Any]]]:
        if records:
            logits = self.forward({"input_values": torch.cat(records)}, **forward_params)["logits"]
            yield from (self.postprocess({"logits": row[None]}, **postprocess_params) for row in logits)

    def _forward(self, input_tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"logits": self.model(**input_tensors).logits}

    def postprocess(
        self,
        model_outputs: dict[str, torch.Tensor],
        function_to_apply: str | None = None,
        top_k: int | None = None,
        threshold: float | None = None,
        decide: bool = False,
    ) -> list[dict[str, Any]]:
        """Logits (1, labels) -> labels and scores, highest first."""
        config = self.model.config
        temperature = getattr(config, "temperature", None) or 1
        if not (isinstance(temperature, (int, float)) and math.isfinite(temperature) and temperature > 0):
            raise ValueError(f"config.temperature is {temperature!r}, expected a positive number to divide logits by.")
        logits = model_outputs["logits"][0].float() / temperature
        default = _default_function(config.problem_type) if decide or function_to_apply is None else None
        if decide and function_to_apply not in (None, default):
            raise ValueError(
                f"decide=True is about {default} scores, on which the thresholds were chosen: leave out "
                f"function_to_apply={function_to_apply!r}."
            )
        scores = _apply(function_to_apply or str(default), logits)
        if not torch.isfinite(scores).all():
            raise ValueError("The model's scores are not finite: its weights are broken.")
        names: dict[int, str] = config.id2label
        ranked = sorted(enumerate(scores.tolist()), key=lambda pair: -pair[1])[:top_k]
        found = [(index, score) for index, score in ranked if threshold is None or score >= threshold]
        labels: list[dict[str, Any]] = [{"label": names[index], "score": score} for index, score in found]
        if decide:
            thresholds = getattr(config, "decision_thresholds", None) or {}
            for label in labels:
                least = thresholds.get(label["label"])
                label |= {"threshold": least, "decision": None if least is None else label["score"] >= least}
        return labels


def _default_function(problem_type: str | None) -> str:
    if problem_type not in _FUNCTIONS:
        raise ValueError(
            f"config.problem_type is {problem_type!r}: set it to 'multi_label_classification' (sigmoid) or "
            "'single_label_classification' (softmax) to say what the scores mean."
        )
    return _FUNCTIONS[problem_type]


def _apply(function: str, logits: torch.Tensor) -> torch.Tensor:
    if function == "none":
        return logits
    return logits.sigmoid() if function == "sigmoid" else logits.softmax(dim=0)


def _as_array(record: Any) -> np.ndarray:
    """A nested list as an array of numbers. Raises `ValueError` for what makes none."""
    try:
        values = np.asarray(record)
    except (ValueError, TypeError) as error:
        raise ValueError(f"A record must be an array (leads, samples), but is a list that makes none: {error}") from error
    if values.dtype.kind not in "iuf":
        raise ValueError(f"A record must be an array (leads, samples) of numbers, but is a {type(record).__name__} of others.")
    return values


def _rows_of_dataset(inputs: Any) -> Iterator[Any] | None:
    """Records of a `datasets.Dataset`, or of a column of one; `None` for anything else."""
    if type(inputs).__module__.partition(".")[0] != "datasets":
        return None
    if isinstance(inputs, Mapping):
        raise ValueError(f"A dataset of several splits: choose one of {', '.join(map(str, inputs))}.")
    if not hasattr(inputs, "select_columns"):
        return (row for row in inputs)
    # Streams may not know their columns beforehand.
    columns = inputs.column_names or list(next(iter(inputs), {}))
    sources = [name for name in ("path", *_SIGNAL_KEYS) if name in columns]
    if len(sources) != 1:
        raise ValueError(
            f"A dataset needs one column of records, path, signal, array or raw; this one has {', '.join(columns)}. "
            "Rename its column, or pass the column alone: dataset['...']."
        )
    known = inputs.select_columns([*sources, *(name for name in _DECLARATIONS if name in columns)])
    return (row for row in known)


__all__ = ["EcgClassificationPipeline"]
