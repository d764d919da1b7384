"""Everything that a comparison can be told. Imports nothing heavy, so that `--help` is quick."""

from typing import Literal

from ecg_jepa._utils.settings import check_at_least, check_share, option, settings
from ecg_jepa.data.task_names import TaskName


@settings
class ComparisonSettings:
    """Settings of `ecg-jepa compare`. Raises `ValueError` for values that do not fit together."""

    objectives: list[str] = option(
        ["jepa", "mae", "mae-random=mae", "simclr", "byol", "random"], "NAME, or LABEL=NAME for one with settings of its own"
    )
    settings: list[str] = option([], "KEY=VALUE of pretrain for all objectives, or LABEL.KEY=VALUE for one's")
    seeds: list[int] = option([0, 1, 2], "of pre-training")
    max_steps: int = option(600, "of the first objective")
    match: Literal["flops", "steps"] = option("flops", "what the others have as much of as the first")
    warmup_share: float = option(0.1, "of the steps")
    evaluations: int = option(8, "linear probes during each run, on validation records")

    tuning: list[str] = option(
        ["learning_rate=3e-4,1e-3,3e-3"], "KEY=VALUE,VALUE,... to choose from for each objective, or LABEL.KEY=... for one"
    )
    tuning_share: float = option(0.1, "of the steps in which it is chosen, with the first seed")
    probe_task: TaskName = option("superdiagnostic", "of these probes, and what settings are chosen by")

    protocols: list[str] = option(["linear", "attentive", "finetune"], "by which encoders are judged")
    tasks: list[str] = option(["superdiagnostic", "form", "rhythm"], "for which")
    label_fractions: list[float] = option([0.01, 0.1, 1.0], "shares of the training labels")
    finetune_seeds: list[int] = option([0], "of the judging runs")
    baselines: list[str] = option([], "labels of objectives, against which all others are tested; default: the first")
    finetune_settings: list[str] = option([], "KEY=VALUE of finetune, or PROTOCOL.KEY=VALUE")

    data_dir: str = option("data/prepared", "folder with prepared databases")
    database: str | None = option(None, "whose labels are used, if data_dir has several")
    output_dir: str = option("runs/comparison", "of everything; what is finished is not run again")
    jobs: int = option(1, "encoders that are trained and judged at a time, each on its share of the CPU cores")
    keep_runs: bool = option(True, "false: remove folders of runs once their encoder is judged; judged/ and tried/ stay")
    report_only: bool = option(False, "run nothing, and report of what is kept in judged/ and tried/, also while others are run")
    launcher: str = option("", "words before `-m ecg_jepa`, such as 'accelerate launch --num_processes 8'; default: this Python")

    def __post_init__(self) -> None:
        check_at_least(self, 1, "max_steps", "evaluations", "jobs")
        check_share(self, "warmup_share", "tuning_share", below_one=True)
        if len(set(self.baselines)) < len(self.baselines):
            raise ValueError(f"baselines: {', '.join(self.baselines)}: name each once.")
        for name in ("objectives", "seeds", "protocols", "tasks", "label_fractions", "finetune_seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name}: {', '.join(map(str, values)) or 'empty'}: name at least one, and each once.")
