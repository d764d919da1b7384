"""
Objectives that compare two views of a record, of normalised signals. No view turns a lead upside down or moves a piece of a
record to another place: either would change the diagnosis.
"""

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from .._utils.settings import check_at_least, option, settings
from ..model.configuration_ecg_jepa import EcgJepaConfig
from ..model.modeling_ecg_jepa import EcgJepaModel
from ..model.signal_processing_ecg_jepa import CLIP
from .objective import BatchKey, Objective, StepOutput, mean_over_processes
from .recipe import PretrainingRecipe, whole_patches

Drawn = Mapping[str, torch.Tensor]
_WHICH = ("first", "second")

# Each change of a physiological view happens to half of the views; hidden leads are half of all leads but the second.
_APPLIED = _HIDDEN_LEADS = 0.5
_LONGEST_TIME_OUT = 0.5  # of a view
_LARGEST_NOISE = 0.2  # standard deviations of a lead
_LARGEST_DISTURBANCE = 0.3  # mV, of baseline wander and of mains interference
_WANDER_HZ = (0.05, 0.5)  # breathing and movement
_MAINS_HZ = (50.0, 60.0)
_SMALLEST_CROP = 0.5  # of a record


class PhysiologicalViews:
    """What happens to recordings: a shorter stretch (`length` samples), leads off, a time-out, noise and interference."""

    def __init__(self, config: EcgJepaConfig, length: int):
        self.config = config
        self.length = length

    def draw(self, rows: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """Draw the parameters of one view of each of `rows` records, on the CPU."""

        def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
            return low + (high - low) * torch.rand(rows, *shape, generator=generator)

        def applied(*shape: int) -> torch.Tensor:
            return torch.rand(rows, *shape, generator=generator) < _APPLIED

        config = self.config
        names = [name.upper() for name in config.lead_names]
        hidden = applied(1) & (torch.rand(rows, len(names), generator=generator) < _HIDDEN_LEADS)
        hidden[:, names.index("II") if "II" in names else 0] = False
        # Frequencies above half of the sampling rate do not exist; 0 Hz at phase 0 is no interference.
        mains = torch.tensor([frequency for frequency in _MAINS_HZ if frequency < config.sampling_rate / 2] or [0.0])
        return {
            "start": torch.randint(config.signal_length - self.length + 1, (rows,), generator=generator),
            "hidden": hidden,
            "time_out": _draw_time_out(rows, generator, applied()),
            "noise": applied() * uniform(0.0, _LARGEST_NOISE),
            "noise_seed": torch.randint(1 << 62, (rows,), generator=generator),
            # Each lead sees the same source from another side.
            "wander": (applied() * uniform(0.0, _LARGEST_DISTURBANCE))[:, None] * uniform(-1.0, 1.0, len(names)),
            "wander_hz": uniform(*_WANDER_HZ),
            "wander_phase": uniform(0.0, 2 * math.pi),
            "mains": (applied() * uniform(0.0, _LARGEST_DISTURBANCE))[:, None] * uniform(-1.0, 1.0, len(names)),
            "mains_hz": mains[torch.randint(len(mains), (rows,), generator=generator)],
            "mains_phase": uniform(0.0, 2 * math.pi) * (mains[0] > 0),
        }

    def apply(self, signal: torch.Tensor, drawn: Drawn, units_per_millivolt: torch.Tensor) -> torch.Tensor:
        """Make views (rows, leads, samples) of normalised records, in which a millivolt has so many units, (rows, leads, 1)."""
        samples = torch.arange(self.length, device=signal.device)
        view = _take(signal, drawn["start"][:, None] + samples)
        seconds = samples / self.config.sampling_rate
        # Preparation has filtered both disturbances out of amplitude-free records.
        for name in () if self.config.amplitude_free else ("wander", "mains"):
            wave = torch.sin(2 * math.pi * drawn[f"{name}_hz"][:, None] * seconds + drawn[f"{name}_phase"][:, None])
            view = view + drawn[name][:, :, None] * units_per_millivolt * wave[:, None]
        view = view + drawn["noise"][:, None, None] * seeded_normal(drawn["noise_seed"], view.shape[1:])
        return _time_out(view.masked_fill(drawn["hidden"][:, :, None], 0.0), drawn["time_out"])


class LiteratureViews:
    """Resized crop and time-out, as in the comparison of Mehari & Strodthoff 2022. Resizing changes the heart rate."""

    def draw(self, rows: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """Draw the parameters of one view of each of `rows` records, on the CPU."""
        share = _SMALLEST_CROP + (1 - _SMALLEST_CROP) * torch.rand(rows, generator=generator)
        start = (1 - share) * torch.rand(rows, generator=generator)
        return {"share": share, "start": start, "time_out": _draw_time_out(rows, generator, torch.ones(rows))}

    def apply(self, signal: torch.Tensor, drawn: Drawn, units_per_millivolt: torch.Tensor) -> torch.Tensor:
        """Make views of normalised records, both (rows, leads, samples)."""
        last = signal.shape[2] - 1
        steps = torch.linspace(0.0, 1.0, last + 1, device=signal.device)
        places = ((drawn["start"][:, None] + drawn["share"][:, None] * steps) * last).clamp(0, last)
        before = places.floor().long().clamp(max=last - 1)
        view = torch.lerp(_take(signal, before), _take(signal, before + 1), (places - before)[:, None])
        return _time_out(view, drawn["time_out"])


def _take(signal: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Return the samples of (rows, leads, samples) at `places` (rows, samples of a view)."""
    return signal.gather(2, places[:, None].expand(-1, signal.shape[1], -1))


def _draw_time_out(rows: int, generator: torch.Generator, applied: torch.Tensor) -> torch.Tensor:
    """Draw begin and end of a time-out as shares of the view, (rows, 2); both are equal where it is not applied."""
    length = _LONGEST_TIME_OUT * torch.rand(rows, generator=generator) * applied
    begin = (1 - length) * torch.rand(rows, generator=generator)
    return torch.stack([begin, begin + length], dim=1)


def _time_out(view: torch.Tensor, bounds: torch.Tensor) -> torch.Tensor:
    share = torch.arange(view.shape[2], device=view.device) / view.shape[2]
    return view.masked_fill(((share >= bounds[:, :1]) & (share < bounds[:, 1:]))[:, None], 0.0)


def seeded_normal(seeds: torch.Tensor, shape: tuple[int, ...] | torch.Size) -> torch.Tensor:
    """Return normal numbers (rows, *shape) of each row's seed (rows,) alone: but for rounding, the same on every device."""

    def shifted(state: torch.Tensor, bits: int) -> torch.Tensor:  # filled with zeros, which >> does for positive numbers only
        return (state >> bits) & ((1 << (64 - bits)) - 1)

    count = math.prod(shape)
    # SplitMix64 (Steele et al. 2014) makes numbers uniform, Box and Muller's formula normal.
    state = seeds[:, None] + torch.arange(1, count + 1, device=seeds.device) * -0x61C8864680B583EB  # overflow is intended
    state = (state ^ shifted(state, 30)) * -0x40A7B892E31B1A47
    state = (state ^ shifted(state, 27)) * -0x6B2FB644ECCEEE15
    state = state ^ shifted(state, 31)
    radius, angle = ((bits.to(torch.float32) + 0.5) * 2.0**-24 for bits in (shifted(state, 40), state & 0xFFFFFF))
    return ((-2.0 * radius.log()).sqrt() * (2 * math.pi * angle).cos()).view(len(seeds), *shape)


@settings
class ViewRecipe(PretrainingRecipe):
    """Settings of objectives that compare two views of each record."""

    views: Literal["physiological", "literature"] = option(
        "physiological", "physiological: what happens to recordings; literature: resized crop and time-out"
    )
    embedding: Literal["register", "mean"] = option("register", "what is compared of a view: its register token, or the mean")
    view_duration: float = option(5.0, "seconds of a physiological view; one of the literature is as long as the record")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.view_duration <= self.crop_duration:
            raise ValueError(f"view_duration={self.view_duration} must lie between 0 and crop_duration={self.crop_duration} s.")
        check_at_least(self, 2, "batch_size")
        if self.gradient_accumulation_steps > 1:
            remedy = "use a larger batch_size instead of gradient_accumulation_steps"
            raise ValueError(f"The objective {self.objective} compares all records of an optimiser step: {remedy}.")


Recipe = TypeVar("Recipe", bound=ViewRecipe)


class TwoViews(Objective[Recipe]):
    """Base of objectives that compare two views of each record: it makes the views, subclasses `compare` them."""

    needs_units = True

    def __init__(self, config: EcgJepaConfig, recipe: Recipe):
        super().__init__(config, recipe)
        if recipe.embedding == "register" and not config.num_register_tokens:
            raise ValueError("embedding='register', but the encoder has no register token: choose embedding='mean'.")
        self.views: PhysiologicalViews | LiteratureViews = LiteratureViews()
        if recipe.views == "physiological":
            length = whole_patches(recipe, "view_duration", config.patch_size, config.sampling_rate)
            self.views = PhysiologicalViews(config, length)

    def draw(self, key: BatchKey, batch_size: int) -> dict[str, torch.Tensor]:
        """Draw the parameters of both views of each record: `first_*` and `second_*`, a row per record."""
        pair = {which: self.views.draw(batch_size, key.generator(number)) for number, which in enumerate(_WHICH)}
        return {f"{which}_{name}": rows for which, drawn in pair.items() for name, rows in drawn.items()}

    def forward(self, input_values: torch.Tensor, **drawn: torch.Tensor) -> StepOutput:
        """Compute the loss of both views of all records."""
        return self.compare(*(self.view(which, input_values, drawn) for which in _WHICH))

    def view(self, which: str, input_values: torch.Tensor, drawn: Drawn) -> torch.Tensor:
        """Make the "first" or the "second" view of normalised records, clipped as the encoder's input always is."""
        own = {name.removeprefix(f"{which}_"): rows for name, rows in drawn.items() if name.startswith(f"{which}_")}
        units = drawn.get("units_per_millivolt", input_values.new_ones(1, 1, 1))
        return self.views.apply(input_values, own, units).clamp(-CLIP, CLIP)

    def compare(self, first: torch.Tensor, second: torch.Tensor) -> StepOutput:
        """Compute the loss of two views (batch, leads, samples) of the same records."""
        raise NotImplementedError

    def embed(self, encoder: EcgJepaModel, views: torch.Tensor) -> torch.Tensor:
        """Encode views as the vectors that are compared, (batch, hidden_size): first register token or mean of patches."""
        output = encoder(views)
        return output.last_hidden_state[:, 0] if self.recipe.embedding == "register" else output.pooler_output

    def plots(self, signal: torch.Tensor, input_values: torch.Tensor, drawn: Drawn) -> dict[str, Any]:
        """Plot two records beside their views."""
        from .progress_plots import plot_views

        views = [self.view(which, input_values, drawn) for which in _WHICH]
        records, first, second = (part[:2].cpu().numpy() for part in (input_values, *views))
        return {"views": plot_views(records, first, second, self.config.sampling_rate, list(self.config.lead_names))}


class BatchNorm(nn.Module):
    """Batch normalisation over the rows of all processes (PyTorch's own knows one process, or CUDA), always by the batch."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Normalise (rows, width); returns float32."""
        rows = rows.float()
        rows = rows - mean_over_processes(rows.mean(dim=0))
        variance = mean_over_processes(rows.square().mean(dim=0))
        return rows * (variance + 1e-5).rsqrt() * self.weight + self.bias


def projector(widths: list[int], batch_norm: bool) -> nn.Sequential:
    """Return linear layers from the first of `widths` to the last, and between them GELU, after batch normalisation if asked."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths[:-1]):
        layers += [nn.Linear(before, after, bias=not batch_norm), *([BatchNorm(after)] if batch_norm else []), nn.GELU()]
    return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))
