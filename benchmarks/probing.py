"""
What a frozen probe saves by encoding validation and test records once: the same probe, encoding them at each evaluation.

Evaluations are as frequent, in crops, as on the whole of PTB-XL: 2,183 validation records every 100 steps of 128 crops.

    python tests/benchmarks/probing.py --model_name_or_path RUN --data_dir PREPARED [--protocol attentive]
"""

import dataclasses
import statistics
import time
from unittest.mock import patch

import numpy as np
from accelerate import Accelerator

from ecg_jepa._utils.hardware import set_threads
from ecg_jepa._utils.settings import make_settings, option, parse_settings, read_yaml, settings
from ecg_jepa.finetuning import loop
from ecg_jepa.finetuning.classifier import Scorer
from ecg_jepa.finetuning.protocols import ProtocolSettings
from ecg_jepa.finetuning.run import load_task, open_run

PTB_XL_VALIDATION_RECORDS, STEPS_BETWEEN_EVALUATIONS = 2183, 100


@settings
class Arguments:
    """Arguments of this script."""

    model_name_or_path: str = option("random:xs", "as for finetune.py")
    data_dir: str = option("data/prepared", "as for finetune.py")
    database: str | None = option(None, "as for finetune.py")
    task: str = option("superdiagnostic", "as for finetune.py")
    protocol: str = option("attentive", "attentive or linear")
    num_evaluations: int = option(30, "of a run; the paper's has 50")
    repeats: int = option(3, "measurements of each, in turn")


class EncodesEachTime(Scorer):
    """A scorer that keeps nothing."""

    def _encoded(self, device):  # type: ignore[no-untyped-def]
        return self._encode(device)


def probe(settings: ProtocolSettings, scorer: type[Scorer]) -> tuple[float, list[np.ndarray]]:
    """Seconds of a run, and the logits of validation and test at its end."""
    with patch.object(loop, "Scorer", scorer):
        accelerator = Accelerator()
        set_threads(accelerator)
        run = open_run(settings, accelerator)
        begin = time.perf_counter()
        validation = run.scorer("validation")
        loop.train(run, validation)
        results = [scorer.logits() for scorer in (validation, run.scorer("test"))]
        return time.perf_counter() - begin, results


def main() -> None:
    arguments = parse_settings(Arguments, description=__doc__)
    chosen = {name: getattr(arguments, name) for name in ("model_name_or_path", "data_dir", "database", "task")}
    settings = make_settings(ProtocolSettings, read_yaml(arguments.protocol) | chosen)
    validation_records = len(load_task(settings).splits["validation"])
    steps = max(1, round(STEPS_BETWEEN_EVALUATIONS * validation_records / PTB_XL_VALIDATION_RECORDS))
    settings = dataclasses.replace(settings, eval_steps=steps, max_steps=steps * arguments.num_evaluations)
    seconds: dict[type[Scorer], list[float]] = {Scorer: [], EncodesEachTime: []}
    for _ in range(arguments.repeats):
        results = []
        for scorer, times in seconds.items():
            elapsed, logits = probe(settings, scorer)
            times.append(elapsed)
            results.append(logits)
        assert all(np.array_equal(ours, theirs) for ours, theirs in zip(*results, strict=True)), "results differ"
    once, each = seconds[Scorer], seconds[EncodesEachTime]
    ratios = [b / a for a, b in zip(once, each, strict=True)]
    print(f"{settings.max_steps} steps, {arguments.num_evaluations} evaluations of {validation_records} records; equal logits")
    for name, times in (("encoded once", once), ("encoded at each evaluation", each)):
        print(f"{name}: {statistics.median(times):.1f} s ({min(times):.1f} to {max(times):.1f})")
    print(f"ratio: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
