"""Everything that a benchmark can be told. Imports nothing heavy, so that `--help` is quick."""

from ..common.settings import check_at_least, option, settings
from .variants import variants_of


@settings
class BenchmarkSettings:
    """Settings of `ecg-jepa benchmark`. Raises `ValueError` for variants that are no recipe."""

    configs: list[str] = option(["vit_xs_ptbxl"], "configurations of pre-training: files, or names of those that ship")
    settings: list[str] = option([], "NAME=VALUE of pretrain, over all configurations")
    variants: list[str] = option(
        [], "NAME=VALUE,NAME=VALUE,... over a configuration, each; default: its own precision, and float32"
    )
    against: str | None = option(None, "checkout of the reference implementation, whose step is timed in turn with the variants")

    batch_size: int | None = option(None, "records per batch; default: the recipe's, on a CPU at most 32")
    rounds: int = option(5, "measurements of each variant, in turn")
    warmup: int = option(2, "steps of each variant before them")
    profile: bool = option(False, "also list what a step spends most time in, by PyTorch's profiler")

    data_dir: str | None = option(None, "folder with prepared databases; default: random signals, and no loader is measured")
    sampling_rate: int = option(500, "of random signals in Hz")
    num_threads: int | None = option(None, "of the CPU; default: all cores, as pretrain takes them")
    matmul_sizes: list[int] = option([], "rows of the square matrices whose product tells the machine's peak; default: by device")

    output_file: str = option("runs/benchmark.json", "JSON file of all measurements")

    def __post_init__(self) -> None:
        check_at_least(self, 1, "batch_size", "rounds", "warmup", "num_threads", "sampling_rate")
        if not self.output_file.endswith(".json"):
            raise ValueError(f"output_file={self.output_file!r} must end in .json.")
        if any(size < 1 for size in self.matmul_sizes):
            raise ValueError(f"matmul_sizes={self.matmul_sizes} must be at least 1.")
        if not self.configs or len(set(self.configs)) < len(self.configs):
            raise ValueError(f"configs: {', '.join(self.configs) or 'empty'}: name at least one, and each once.")
        for config in self.configs:
            variants = variants_of(config, self.settings, self.variants)
            if self.against is not None:
                for variant in variants:
                    variant.check_reference_has_it()
