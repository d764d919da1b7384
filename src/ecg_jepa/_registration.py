"""
Make the Auto classes and the pipeline of transformers know ours.

`import ecg_jepa` alone must do it, but importing models takes seconds, which nobody wants to wait for who asks a command for its
`--help`. So each step waits for what it needs: configuration and feature extractor for the import of transformers, models for the
first configuration that is made (no model is without one), the pipeline for the import of transformers' pipelines.

Our own modules import transformers, too; while one of them is half imported, its classes cannot be registered: hence counting.
"""

import functools
import importlib.abc
import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_PACKAGE = __name__.rpartition(".")[0]
_OURS = tuple(
    f"{_PACKAGE}.{name}_ecg_jepa"
    for name in (
        *("configuration", "feature_extraction", "modeling", "pipeline", "signal_processing", "wfdb"),
        *("formats", "binary_formats", "text_formats", "xml_formats", "xml", "record"),
    )
)


def register_with_transformers() -> None:
    """Register what can be registered now, and the rest as soon as it can be."""
    sys.meta_path.insert(0, _Finder({"transformers": _register_configuration, "transformers.pipelines": _register_pipeline}))


def _register_configuration() -> None:
    from transformers import AutoConfig, AutoFeatureExtractor

    from .configuration_ecg_jepa import EcgJepaConfig
    from .feature_extraction_ecg_jepa import EcgJepaFeatureExtractor

    AutoConfig.register(EcgJepaConfig.model_type, EcgJepaConfig, exist_ok=True)
    AutoFeatureExtractor.register(EcgJepaConfig, EcgJepaFeatureExtractor, exist_ok=True)
    # So that save_pretrained puts the code beside the weights.
    EcgJepaConfig.register_for_auto_class()
    EcgJepaFeatureExtractor.register_for_auto_class()

    config_class: Any = EcgJepaConfig
    initialize = config_class.__init__

    @functools.wraps(initialize)
    def initialize_first(self: Any, *args: Any, **kwargs: Any) -> None:
        config_class.__init__ = initialize
        _register_models()
        initialize(self, *args, **kwargs)

    config_class.__init__ = initialize_first


def _register_models() -> None:
    from transformers import AutoModel, AutoModelForPreTraining, AutoModelForSequenceClassification

    from .configuration_ecg_jepa import EcgJepaConfig
    from .modeling_ecg_jepa import EcgJepaForPreTraining, EcgJepaForSequenceClassification, EcgJepaModel

    auto_classes = {
        AutoModel: EcgJepaModel,
        AutoModelForPreTraining: EcgJepaForPreTraining,
        AutoModelForSequenceClassification: EcgJepaForSequenceClassification,
    }
    for auto_class, model_class in auto_classes.items():
        auto_class.register(EcgJepaConfig, model_class, exist_ok=True)
        model_class.register_for_auto_class(auto_class.__name__)


def _register_pipeline() -> None:
    from transformers import AutoModelForSequenceClassification
    from transformers.pipelines import PIPELINE_REGISTRY

    from .pipeline_ecg_jepa import EcgClassificationPipeline

    auto_model: Any = AutoModelForSequenceClassification
    PIPELINE_REGISTRY.register_pipeline("ecg-classification", EcgClassificationPipeline, pt_model=auto_model)


class _Finder(importlib.abc.MetaPathFinder):
    """
    Watches imports, of the modules that steps wait for and of our own.

    Args:
        waiting: module -> the step that waits for it.
    """

    def __init__(self, waiting: dict[str, Callable[[], None]]):
        self.waiting = waiting
        self.being_imported = 0
        self.is_searching = False
        self.take_steps()

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if self.is_searching or (name not in self.waiting and name not in _OURS):
            return None
        self.is_searching = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self.is_searching = False
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(self, spec.loader)
        return spec

    def take_steps(self) -> None:
        """Those that need not wait any longer."""
        if self.being_imported:
            return
        for name in list(self.waiting):
            if name in sys.modules and (step := self.waiting.pop(name, None)):
                step()  # which may import what the next one waits for


class _Loader(importlib.abc.Loader):
    """Loads as `loader` does, and tells the finder when it is done."""

    def __init__(self, finder: _Finder, loader: Any):
        self.finder = finder
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__loader__ = module.__spec__.loader = self.loader  # as if it had been there alone
        self.finder.being_imported += 1
        try:
            self.loader.exec_module(module)
        finally:
            self.finder.being_imported -= 1
        self.finder.take_steps()
