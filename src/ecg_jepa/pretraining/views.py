"""
Views: what an objective that compares a record with itself may change about it.

What is drawn for a view is plain tensors with a row per record, drawn for the whole batch whatever the number of processes; they
are applied on the device. Signals are normalised; 0 is a lead's mean. Nothing is turned upside down and no piece of a record
changes its place: both would be another diagnosis.
"""

import math
from collections.abc import Mapping
from typing import Literal, Protocol

import torch

from .._utils.settings import check_at_least, option, settings
from ..model.configuration_ecg_jepa import EcgJepaConfig
from ..model.signal_processing_ecg_jepa import CLIP
from .objective import BatchKey
from .recipe import PretrainingRecipe, whole_patches

Drawn = Mapping[str, torch.Tensor]

# Each change of a physiological view happens to half of the views, and hides half of the leads if it hides leads.
_APPLIED = 0.5
_HIDDEN_LEADS = 0.5
_KEPT_LEAD = "II"
_LONGEST_TIME_OUT = 0.5  # of a view
_LARGEST_NOISE = 0.2  # standard deviations of a lead
_LARGEST_DISTURBANCE = 0.3  # mV, of baseline wander and of mains interference
_WANDER_HZ = (0.05, 0.5)  # breathing and movement
_MAINS_HZ = (50.0, 60.0)
_SMALLEST_CROP = 0.5  # of a record


class Views(Protocol):
    """A way to make views."""

    def draw(self, rows: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """What one view of each of `rows` records is made by, on the CPU."""

    def apply(self, signal: torch.Tensor, drawn: Drawn, units_per_millivolt: torch.Tensor) -> torch.Tensor:
        """
        Normalised records (rows, leads, samples) -> their views (rows, leads, samples of a view). `units_per_millivolt` are those
        of the input, per record and lead (rows, leads, 1).
        """


class PhysiologicalViews:
    """
    What happens to recordings: a stretch of the record, leads off, a time-out, noise, and in records that have an amplitude
    baseline wander and mains interference.

    Args:
        config: of the model that will see them.
        length: of a view, in samples.
    """

    def __init__(self, config: EcgJepaConfig, length: int):
        self.length = length
        self.record_length = config.signal_length
        self.sampling_rate = config.sampling_rate
        names = [name.upper() for name in config.lead_names]
        self.kept_lead = names.index(_KEPT_LEAD) if _KEPT_LEAD in names else 0
        self.num_leads = len(names)
        # Preparation has filtered both out of amplitude-free records.
        self.is_disturbed = not config.amplitude_free

    def draw(self, rows: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """As for [`Views`]."""

        def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
            return low + (high - low) * torch.rand(rows, *shape, generator=generator)

        def applied(*shape: int) -> torch.Tensor:
            return torch.rand(rows, *shape, generator=generator) < _APPLIED

        leads = self.num_leads
        hidden = applied(1) & (torch.rand(rows, leads, generator=generator) < _HIDDEN_LEADS)
        hidden[:, self.kept_lead] = False
        # Above half of the sampling rate there is nothing; the sine of 0 Hz is nothing, too.
        mains = torch.tensor([frequency for frequency in _MAINS_HZ if frequency < self.sampling_rate / 2] or [0.0])
        return {
            "start": torch.randint(self.record_length - self.length + 1, (rows,), generator=generator),
            "hidden": hidden,
            "time_out": _draw_time_out(rows, generator, applied()),
            "noise": applied() * uniform(0.0, _LARGEST_NOISE),
            "noise_seed": torch.randint(1 << 62, (rows,), generator=generator),
            # Leads see the same source from different sides.
            "wander": (applied() * uniform(0.0, _LARGEST_DISTURBANCE))[:, None] * uniform(-1.0, 1.0, leads),
            "wander_hz": uniform(*_WANDER_HZ),
            "wander_phase": uniform(0.0, 2 * math.pi),
            "mains": (applied() * uniform(0.0, _LARGEST_DISTURBANCE))[:, None] * uniform(-1.0, 1.0, leads),
            "mains_hz": mains[torch.randint(len(mains), (rows,), generator=generator)],
            "mains_phase": uniform(0.0, 2 * math.pi) * (mains[0] > 0),
        }

    def apply(self, signal: torch.Tensor, drawn: Drawn, units_per_millivolt: torch.Tensor) -> torch.Tensor:
        """As for [`Views`]."""
        samples = torch.arange(self.length, device=signal.device)
        places = drawn["start"][:, None] + samples
        view = signal.gather(2, places[:, None].expand(-1, signal.shape[1], -1))
        seconds = samples / self.sampling_rate
        for name in ("wander", "mains") if self.is_disturbed else ():
            wave = torch.sin(2 * math.pi * drawn[f"{name}_hz"][:, None] * seconds + drawn[f"{name}_phase"][:, None])
            view = view + drawn[name][:, :, None] * units_per_millivolt * wave[:, None]
        view = view + drawn["noise"][:, None, None] * seeded_normal(drawn["noise_seed"], view.shape[1:])
        view = view.masked_fill(drawn["hidden"][:, :, None], 0.0)
        return _time_out(view, drawn["time_out"])


class LiteratureViews:
    """
    What computer vision calls a resized crop, half of the record or more drawn out to its whole length, and a time-out. As in the
    comparison of Mehari & Strodthoff 2022; resizing changes the heart rate.

    Args:
        config: of the model that will see them.
    """

    def __init__(self, config: EcgJepaConfig):
        self.record_length = config.signal_length

    def draw(self, rows: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """As for [`Views`]."""
        share = _SMALLEST_CROP + (1 - _SMALLEST_CROP) * torch.rand(rows, generator=generator)
        return {
            "share": share,
            "start": (1 - share) * torch.rand(rows, generator=generator),
            "time_out": _draw_time_out(rows, generator, torch.ones(rows, dtype=torch.bool)),
        }

    def apply(self, signal: torch.Tensor, drawn: Drawn, units_per_millivolt: torch.Tensor) -> torch.Tensor:
        """As for [`Views`]."""
        last = self.record_length - 1
        steps = torch.linspace(0.0, 1.0, self.record_length, device=signal.device)
        places = ((drawn["start"][:, None] + drawn["share"][:, None] * steps) * last).clamp(0, last)
        before = places.floor().long().clamp(max=last - 1)

        def at(index: torch.Tensor) -> torch.Tensor:
            return signal.gather(2, index[:, None].expand(-1, signal.shape[1], -1))

        return _time_out(torch.lerp(at(before), at(before + 1), (places - before)[:, None]), drawn["time_out"])


def _draw_time_out(rows: int, generator: torch.Generator, applied: torch.Tensor) -> torch.Tensor:
    """Begin and end of a time-out as shares of the view, (rows, 2); nothing lies between them where it is not applied."""
    length = _LONGEST_TIME_OUT * torch.rand(rows, generator=generator) * applied
    begin = (1 - length) * torch.rand(rows, generator=generator)
    return torch.stack([begin, begin + length], dim=1)


def _time_out(view: torch.Tensor, bounds: torch.Tensor) -> torch.Tensor:
    share = torch.arange(view.shape[2], device=view.device) / view.shape[2]
    return view.masked_fill(((share >= bounds[:, :1]) & (share < bounds[:, 1:]))[:, None], 0.0)


def seeded_normal(seeds: torch.Tensor, shape: tuple[int, ...] | torch.Size) -> torch.Tensor:
    """
    Standard normal numbers (rows, *shape), a function of each row's seed (rows,) alone: the same in every process, and but for
    rounding on every device, without a generator per record. SplitMix64 (Steele et al. 2014) numbers the draws, Box and Muller
    shape them.
    """
    count = math.prod(shape)
    state = seeds[:, None] + torch.arange(1, count + 1, device=seeds.device) * -0x61C8864680B583EB  # wraps, as it should
    state = (state ^ _shifted(state, 30)) * -0x40A7B892E31B1A47
    state = (state ^ _shifted(state, 27)) * -0x6B2FB644ECCEEE15
    state = state ^ _shifted(state, 31)
    radius, angle = ((bits.to(torch.float32) + 0.5) * 2.0**-24 for bits in (_shifted(state, 40), state & 0xFFFFFF))
    return ((-2.0 * radius.log()).sqrt() * (2 * math.pi * angle).cos()).view(len(seeds), *shape)


def _shifted(state: torch.Tensor, bits: int) -> torch.Tensor:
    """64-bit integers moved to the right, with zeros from the left, which `>>` does for positive ones only."""
    return (state >> bits) & ((1 << (64 - bits)) - 1)


@settings
class ViewRecipe(PretrainingRecipe):
    """Of objectives that compare two views of each record."""

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
            raise ValueError(
                f"The objective {self.objective} compares all records of an optimiser step: use a larger batch_size instead of "
                "gradient_accumulation_steps."
            )

    def make_views(self, config: EcgJepaConfig) -> Views:
        """
        The views that the recipe asks for.

        Raises:
            ValueError: if a physiological one is no whole number of patches.
        """
        if self.views == "literature":
            return LiteratureViews(config)
        return PhysiologicalViews(config, whole_patches(self, "view_duration", config.patch_size, config.sampling_rate))


def draw_pair(views: Views, key: BatchKey, batch_size: int) -> dict[str, torch.Tensor]:
    """What two views of each record of a batch are made by: `first_*` and `second_*`, rows of records each."""
    pair = {name: views.draw(batch_size, key.generator(number)) for number, name in enumerate(("first", "second"))}
    return {f"{which}_{name}": rows for which, drawn in pair.items() for name, rows in drawn.items()}


def view_of(which: str, views: Views, signal: torch.Tensor, drawn: Drawn, units_per_millivolt: torch.Tensor) -> torch.Tensor:
    """The `first` or the `second` view of records, of what [`draw_pair`] drew for them."""
    own = {name.removeprefix(f"{which}_"): rows for name, rows in drawn.items() if name.startswith(f"{which}_")}
    return views.apply(signal, own, units_per_millivolt).clamp(-CLIP, CLIP)  # as the encoder's input always is
