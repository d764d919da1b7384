"""Records -> labels with scores: `pipeline("ecg-classification", model=DIRECTORY)`."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Pipeline

from .wfdb_ecg_jepa import read_wfdb

_SIGNAL_KEYS = ("signal", "array", "raw")
_DECLARATIONS = ("sampling_rate", "lead_names", "unit")


class EcgClassificationPipeline(Pipeline):
    """
    Classifies ECG records with an `EcgJepaForSequenceClassification`.

    A record is

    - the path of a WFDB record, with or without extension, whose header says rate, leads and unit;
    - an array or tensor (leads, samples) with `sampling_rate` in Hz and `unit` ("mV", "uV", "V", "nV"), and `lead_names`
      unless its rows are the model's leads in the model's order;
    - a dict with one of these as `"path"` or `"signal"` (also `"array"` or `"raw"`) and its own declarations;
    - or a list of these, or an array (records, leads, samples).

    The feature extractor brings it into the form that training used and cuts it into crops, whose logits are averaged. What
    does not fit raises a `ValueError` that says what is missing; nothing is padded or guessed.

    Args of a call (or of the pipeline, as defaults):
        sampling_rate, lead_names, unit: of arrays that do not say so themselves.
        check_plausibility (`bool`, *optional*): whether records that cannot be ECGs in their unit raise; default: they do.
        top_k (`int`, *optional*): keep so many labels; default: all.
        threshold (`float`, *optional*): keep labels with at least this score.
        batch_size (`int`, *optional*): records that run through the model together; those of one length are.

    Returns:
        For a record a list of `{"label": ..., "score": ...}`, highest score first; for several a list of such lists. Scores
        are sigmoids for `problem_type="multi_label_classification"`, a softmax for `"single_label_classification"`.
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
        if (isinstance(inputs, (np.ndarray, torch.Tensor)) and inputs.ndim == 3) or isinstance(inputs, tuple):
            inputs = list(inputs)
        if isinstance(inputs, list) and not inputs:
            return []
        return super().__call__(inputs, **kwargs)

    def _sanitize_parameters(
        self,
        sampling_rate: float | None = None,
        lead_names: Sequence[str] | None = None,
        unit: str | None = None,
        check_plausibility: bool | None = None,
        top_k: int | None = None,
        threshold: float | None = None,
        **unknown: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if unknown:
            raise ValueError(
                f"Unknown arguments {', '.join(unknown)}: expected sampling_rate, lead_names, unit, "
                "check_plausibility, top_k, threshold, batch_size."
            )
        if top_k is not None and (isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1):
            raise ValueError(f"top_k={top_k!r} must be a whole number of at least 1, or None for all labels.")
        if threshold is not None and not (isinstance(threshold, (int, float)) and math.isfinite(threshold)):
            raise ValueError(f"threshold={threshold!r} must be a number, or None for none.")
        preprocess = {"sampling_rate": sampling_rate, "lead_names": lead_names, "unit": unit}
        preprocess["check_plausibility"] = check_plausibility
        postprocess = {"top_k": top_k, "threshold": threshold}
        return (
            {name: value for name, value in preprocess.items() if value is not None},
            {},
            {name: value for name, value in postprocess.items() if value is not None},
        )

    def preprocess(self, input_: Any, check_plausibility: bool = True, **declared: Any) -> dict[str, torch.Tensor]:
        """A record -> `input_values` (1, leads, samples), or (1, crops, leads, samples) if the extractor crops."""
        if isinstance(input_, Mapping):
            input_, declared = self._unpack(input_, declared)
        if isinstance(input_, (str, PathLike)):
            if declared:
                raise ValueError(f"{', '.join(declared)} given for the WFDB record {input_}, whose header says so itself.")
            record = read_wfdb(_without_extension(Path(input_)))
            declared = {"sampling_rate": record.sampling_rate, "lead_names": record.lead_names, "unit": "mV"}
            input_ = record.signal
        if not isinstance(input_, (np.ndarray, torch.Tensor)):
            raise ValueError(
                f"A record must be a WFDB path, an array (leads, samples) or a dict, but got {type(input_).__name__}."
            )
        if input_.ndim != 2:
            raise ValueError(f"A record must be an array (leads, samples), but its shape is {tuple(input_.shape)}.")
        missing = [name for name in ("sampling_rate", "unit") if declared.get(name) is None]
        if missing:
            raise ValueError(
                f"An array does not say its {' and '.join(missing)}: pass {', '.join(f'{name}=...' for name in missing)} "
                '(Hz; "mV", "uV", "V" or "nV").'
            )
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
        return record[sources[0]], own if sources == ["path"] else {**declared, **own}

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
        for item in inputs:
            values = self.preprocess(item, **preprocess_params)["input_values"]
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
        self, model_outputs: dict[str, torch.Tensor], top_k: int | None = None, threshold: float | None = None, decide: bool = False
    ) -> list[dict[str, Any]]:
        """Logits (1, labels) -> labels and scores, highest first."""
        logits = model_outputs["logits"][0].float()
        problem = self.model.config.problem_type
        if problem == "multi_label_classification":
            scores = logits.sigmoid()
        elif problem == "single_label_classification":
            scores = logits.softmax(dim=0)
        else:
            raise ValueError(
                f"config.problem_type is {problem!r}: set it to 'multi_label_classification' (sigmoid) or "
                "'single_label_classification' (softmax) to say what the scores mean."
            )
        if not torch.isfinite(scores).all():
            raise ValueError("The model's scores are not finite: its weights are broken.")
        names: dict[int, str] = self.model.config.id2label
        ranked = sorted(enumerate(scores.tolist()), key=lambda pair: -pair[1])[:top_k]
        if decide:
            t = self.model.config.decision_thresholds or {}
            return [{"label": names[i], "score": v, "threshold": t.get(names[i]), "decision": None if names[i] not in t else v >= t[names[i]]} for i, v in ranked]
        return [{"label": names[index], "score": score} for index, score in ranked if threshold is None or score >= threshold]


def _without_extension(path: Path) -> Path:
    return path.with_suffix("") if path.suffix in (".hea", ".dat", ".mat") else path


__all__ = ["EcgClassificationPipeline"]
