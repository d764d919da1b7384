"""Records -> labels with scores: `pipeline("ecg-classification", model=DIRECTORY)`."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import Pipeline

from .feature_extraction_ecg_jepa import as_ecg, describes_itself
from .signal_processing_ecg_jepa import Ecg, check_complete

_SIGNAL_KEYS = ("signal", "array", "raw")
_DECLARATIONS = ("sampling_rate", "lead_names", "unit")

_FUNCTIONS = {"multi_label_classification": "sigmoid", "single_label_classification": "softmax"}


class EcgClassificationPipeline(Pipeline):
    """
    Classifies ECG records with an `EcgJepaForSequenceClassification`.

    A record is

    - the path of a file in any format of `read_ecg`; where the package is not installed, a WFDB record;
    - an array, tensor or nested list (leads, samples) with `sampling_rate` in Hz and `unit` ("mV", "uV", "V", "nV"), and
      `lead_names` unless its rows are the model's leads in the model's order;
    - an `Ecg` or a `wfdb.Record`;
    - a dict with one of these as `"path"` or `"signal"` (also `"array"` or `"raw"`) and its own declarations;
    - or a list of these, an array (records, leads, samples), a generator, or a `datasets.Dataset` with such columns.

    The feature extractor converts it as training did and cuts it into crops, whose logits are averaged. What does not fit raises
    a `ValueError` that says what is missing; nothing is padded or guessed.

    Args of a call (or of the pipeline, as defaults):
        sampling_rate, lead_names, unit: of records that do not say so themselves; contradictions are refused.
        check_plausibility (`bool`, *optional*): whether records that cannot be ECGs in their unit, or are shorter than the crops
            of training, raise; default: they do.
        function_to_apply (`str`, *optional*): "sigmoid", "softmax" or "none"; default: as the model's `problem_type`.
        top_k (`int`, *optional*): keep only so many labels.
        threshold (`float`, *optional*): keep only labels with at least this score.
        decide (`bool`, *optional*): add to each label the checkpoint's `"threshold"` for its probability, and as `"decision"`
            whether it is reached. Both are `None` for a label without a threshold.
        batch_size (`int`, *optional*): number of records that run through the model together, if they have one length.

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
        """Classify records; see the class."""
        rows = _rows_of_dataset(inputs)
        if rows is not None:
            found = super().__call__(rows, **kwargs)
            return list(found) if hasattr(inputs, "__len__") else found
        is_stack = isinstance(inputs, (np.ndarray, torch.Tensor)) and inputs.ndim == 3
        if is_stack or (isinstance(inputs, tuple) and not describes_itself(inputs)):
            inputs = list(inputs)
        if isinstance(inputs, list):
            if not inputs:
                return []
            if isinstance(inputs[0], (list, tuple)) and inputs[0] and all(isinstance(x, (int, float)) for x in inputs[0]):
                inputs = _as_array(inputs)  # one record, as a list of leads
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
        """Sort arguments as the base class requires. "" means not given, `None` overrides a default of the pipeline."""
        if unknown:
            raise ValueError(
                f"Unknown arguments {', '.join(unknown)}: expected sampling_rate, lead_names, unit, "
                "check_plausibility, function_to_apply, top_k, threshold, decide, batch_size."
            )
        if top_k not in ("", None) and (isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1):
            raise ValueError(f"top_k={top_k!r} must be a whole number of at least 1, or None for all labels.")
        if threshold not in ("", None) and not (isinstance(threshold, (int, float)) and math.isfinite(threshold)):
            raise ValueError(f"threshold={threshold!r} must be a number, or None for none.")
        function = None if function_to_apply is None else str(function_to_apply).lower()
        if function not in (None, "none", *_FUNCTIONS.values()):
            functions = ", ".join((*_FUNCTIONS.values(), "none"))
            raise ValueError(f"function_to_apply={function_to_apply!r} must be one of {functions}, or None.")
        preprocess = {"sampling_rate": sampling_rate, "lead_names": lead_names, "unit": unit}
        preprocess["check_plausibility"] = check_plausibility
        postprocess = {"decide": decide, "function_to_apply": function}
        limits = {"top_k": top_k, "threshold": threshold}
        return (
            {name: value for name, value in preprocess.items() if value is not None},
            {},
            {name: value for name, value in postprocess.items() if value is not None}
            | {name: value for name, value in limits.items() if value != ""},
        )

    def preprocess(self, input_: Any, check_plausibility: bool = True, **declared: Any) -> dict[str, torch.Tensor]:
        """Convert a record to `input_values` (1, leads, samples), or (1, crops, leads, samples) if the extractor crops."""
        if isinstance(input_, Mapping):
            input_, declared = self._unpack(input_, declared)
        extractor: Any = self.feature_extractor
        if describes_itself(input_):
            input_, declared = as_ecg(input_, **declared), {}
            if input_.lead_names is None:
                input_ = input_._replace(lead_names=extractor.lead_names)
        else:
            input_ = _as_array(input_)
            # Rows without names are the model's leads.
            check_complete("record", Ecg(input_, declared.get("sampling_rate"), [], declared.get("unit")))
        return dict(extractor(input_, **declared, return_tensors="pt", check_plausibility=check_plausibility))

    def _unpack(self, record: Mapping[str, Any], declared: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Return the path or array of a dict, and the declarations for it; its own override those of the call."""
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
        """Yield results as the base class does; only records of one shape share a batch, where it would pad them with zeros."""
        waiting: list[torch.Tensor] = []
        for record in inputs:
            values = self.preprocess(record, **preprocess_params)["input_values"]
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
        """Convert logits (1, labels) to labels and scores, highest first."""
        config = self.model.config
        temperature = getattr(config, "temperature", None) or 1
        if not (isinstance(temperature, (int, float)) and math.isfinite(temperature) and temperature > 0):
            raise ValueError(f"config.temperature is {temperature!r}, expected a positive number to divide logits by.")
        logits = model_outputs["logits"][0].float() / temperature
        default = _default_function(config.problem_type) if decide or function_to_apply is None else None
        if decide and function_to_apply not in (None, default):
            raise ValueError(
                f"decide=True is about {default} scores, for which the thresholds were chosen: leave out "
                f"function_to_apply={function_to_apply!r}."
            )
        function = function_to_apply or default
        scores = logits if function == "none" else logits.sigmoid() if function == "sigmoid" else logits.softmax(dim=0)
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


def _as_array(record: Any) -> Any:
    """Return a tensor, array or nested list as a tensor or array (leads, samples). Raises `ValueError` for anything else."""
    if isinstance(record, (list, tuple)):
        try:
            record = np.asarray(record)
        except (ValueError, TypeError) as error:
            raise ValueError(f"A record must be an array (leads, samples), but is a list that makes none: {error}") from error
        if record.dtype.kind not in "iuf":
            raise ValueError("A record must be an array (leads, samples) of numbers, but is a list of others.")
    if not isinstance(record, (np.ndarray, torch.Tensor)):
        raise ValueError(
            "A record must be the path of a file, an array (leads, samples), an Ecg, a wfdb.Record or a dict, but got "
            f"{type(record).__name__}."
        )
    if record.ndim != 2:
        raise ValueError(f"A record must be an array (leads, samples), but its shape is {tuple(record.shape)}.")
    return record


def _rows_of_dataset(inputs: Any) -> Iterator[Any] | None:
    """Yield the records of a `datasets.Dataset`, or of a column of one; return `None` for anything else."""
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
