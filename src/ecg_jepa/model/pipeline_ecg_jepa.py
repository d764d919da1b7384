"""Records -> labels with scores: `pipeline("ecg-classification", model=DIRECTORY)`."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from transformers import Pipeline

from .feature_extraction_ecg_jepa import as_array, as_ecg, describes_itself, unpack_records
from .signal_processing_ecg_jepa import Ecg, check_complete

_SOURCES = ("path", "signal", "array", "raw")
_DECLARATIONS = ("sampling_rate", "lead_names", "unit")
_PREPROCESS = (*_DECLARATIONS, "check_plausibility")
_POSTPROCESS = ("function_to_apply", "top_k", "threshold", "decide")
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
        check_plausibility (`bool`, *optional*): refuse what cannot be an ECG in its unit, or is shorter than crops (the default).
        function_to_apply (`str`, *optional*): "sigmoid", "softmax" or "none"; default: by the model's `problem_type`,
            a sigmoid for `"multi_label_classification"`, a softmax for `"single_label_classification"`.
        top_k (`int`, *optional*): keep only so many labels.
        threshold (`float`, *optional*): keep only labels with at least this score.
        decide (`bool`, *optional*): add to each label the checkpoint's `"threshold"` for its probability, and as `"decision"`
            whether it is reached. Both are `None` for a label without a threshold.
        batch_size (`int`, *optional*): number of records that run through the model together, if they have one length.

    Returns:
        For a record a list of `{"label": ..., "score": ...}`, highest score first; for several a list of such lists. Logits are
        divided by the `temperature` of the model's configuration, if it has one.
    """

    _load_processor = _load_image_processor = _load_tokenizer = False
    _load_feature_extractor = True

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        # By name: the code of a checkpoint and the installed package each have a class of their own.
        check_model = getattr(self.feature_extractor, "check_model", lambda config: None)
        check_model(self.model.config)

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """Classify records; see the class."""
        rows = _rows_of_dataset(inputs)
        records = unpack_records(inputs) if rows is None else rows
        if isinstance(records, list) and not records:
            return []
        found = super().__call__(records, **kwargs)
        return list(found) if rows is not None and hasattr(inputs, "__len__") else found

    def _sanitize_parameters(self, **given: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Check arguments and sort them by step. `None` means not given, but overrides a pipeline's `top_k` and `threshold`."""
        if unknown := [name for name in given if name not in (*_PREPROCESS, *_POSTPROCESS)]:
            known = ", ".join((*_PREPROCESS, *_POSTPROCESS, "batch_size"))
            raise ValueError(f"Unknown arguments {', '.join(unknown)}: expected {known}.")
        given = {name: value for name, value in given.items() if value is not None or name in ("top_k", "threshold")}
        top_k, threshold = given.get("top_k"), given.get("threshold")
        if top_k is not None and (isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1):
            raise ValueError(f"top_k={top_k!r} must be a whole number of at least 1, or None for all labels.")
        if threshold is not None and not (isinstance(threshold, (int, float)) and math.isfinite(threshold)):
            raise ValueError(f"threshold={threshold!r} must be a number, or None for none.")
        if (function := given.get("function_to_apply")) is not None:
            given["function_to_apply"] = str(function).lower()
            functions = (*_FUNCTIONS.values(), "none")
            if given["function_to_apply"] not in functions:
                raise ValueError(f"function_to_apply={function!r} must be one of {', '.join(functions)}, or None.")
        preprocess, postprocess = ({name: given[name] for name in step if name in given} for step in (_PREPROCESS, _POSTPROCESS))
        return preprocess, {}, postprocess

    def preprocess(self, input_: Any, check_plausibility: bool = True, **declared: Any) -> dict[str, torch.Tensor]:
        """Convert a record to `input_values` (1, leads, samples), or (1, crops, leads, samples) if the extractor crops."""
        if isinstance(input_, Mapping):
            sources = [key for key in _SOURCES if key in input_]
            if len(sources) != 1 or any(key not in (*sources, *_DECLARATIONS) for key in input_):
                known = f"'path' or 'signal', and {', '.join(_DECLARATIONS)}"
                raise ValueError(f"A record as a dict has {known}; this one has {', '.join(map(str, input_))}.")
            declared |= {name: input_[name] for name in _DECLARATIONS if input_.get(name) is not None}
            input_ = input_[sources[0]]
        extractor: Any = self.feature_extractor
        if describes_itself(input_):
            input_, declared = as_ecg(input_, **declared), {}
            if input_.lead_names is None:
                input_ = input_._replace(lead_names=extractor.lead_names)
        else:
            input_ = as_array(input_)
            # Rows without names are the model's leads.
            check_complete("record", Ecg(input_, declared.get("sampling_rate"), [], declared.get("unit")))
        return dict(extractor(input_, **declared, return_tensors="pt", check_plausibility=check_plausibility))

    def get_iterator(
        self, inputs: Iterable[Any], num_workers: int, batch_size: int, *params: dict[str, Any]
    ) -> Iterator[list[dict[str, Any]]]:
        """Yield results as the base class does; only records of one shape share a batch, where it would pad them with zeros."""
        preprocess_params, forward_params, postprocess_params = params

        def classify(records: list[torch.Tensor]) -> Iterator[list[dict[str, Any]]]:
            logits = self.forward({"input_values": torch.cat(records)}, **forward_params)["logits"]
            yield from (self.postprocess({"logits": row[None]}, **postprocess_params) for row in logits)

        waiting: list[torch.Tensor] = []
        for record in inputs:
            values = self.preprocess(record, **preprocess_params)["input_values"]
            if waiting and (len(waiting) == batch_size or values.shape != waiting[0].shape):
                yield from classify(waiting)
                waiting = []
            waiting.append(values)
        if waiting:
            yield from classify(waiting)

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
        config: Any = self.model.config
        temperature = getattr(config, "temperature", None) or 1
        if not (isinstance(temperature, (int, float)) and math.isfinite(temperature) and temperature > 0):
            raise ValueError(f"config.temperature is {temperature!r}, expected a positive number to divide logits by.")
        logits = model_outputs["logits"][0].float() / temperature
        default = _FUNCTIONS.get(config.problem_type)
        if default is None and (decide or function_to_apply is None):
            expected = " or ".join(f"{name!r} ({function})" for name, function in _FUNCTIONS.items())
            raise ValueError(f"config.problem_type is {config.problem_type!r}: set it to {expected}.")
        if decide and function_to_apply not in (None, default):
            raise ValueError(f"decide=True is about {default} scores: leave out function_to_apply={function_to_apply!r}.")
        function = function_to_apply or default
        scores = logits if function == "none" else logits.sigmoid() if function == "sigmoid" else logits.softmax(dim=0)
        if not torch.isfinite(scores).all():
            raise ValueError("The model's scores are not finite: its weights are broken.")
        ranked = sorted(enumerate(scores.tolist()), key=lambda pair: -pair[1])[:top_k]
        least = -math.inf if threshold is None else threshold
        labels: list[dict[str, Any]] = [{"label": config.id2label[i], "score": score} for i, score in ranked if score >= least]
        if decide:
            thresholds = getattr(config, "decision_thresholds", None) or {}
            for label in labels:
                limit = thresholds.get(label["label"])
                label |= {"threshold": limit, "decision": None if limit is None else label["score"] >= limit}
        return labels


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
    sources = [name for name in _SOURCES if name in columns]
    if len(sources) != 1:
        found = f"this one has {', '.join(columns)}: rename its column, or pass the column alone"
        raise ValueError(f"A dataset needs one column of records, {', '.join(_SOURCES)}; {found}.")
    known = inputs.select_columns([*sources, *(name for name in _DECLARATIONS if name in columns)])
    return (row for row in known)
