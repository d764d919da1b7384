import math

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from ecg_jepa.pretraining.objective import BatchKey
from ecg_jepa.pretraining.views import BatchNorm, LiteratureViews, PhysiologicalViews, projector, seeded_normal


@pytest.fixture
def config(make_objective):
    return make_objective("random").config


@pytest.fixture
def objective(make_objective):
    return make_objective("simclr", view_duration=2.5)


@pytest.fixture
def physiological(config):
    return PhysiologicalViews(config, 250)


def drawn_of(views, rows=4000, **changed):
    drawn = views.draw(rows, torch.Generator().manual_seed(0))
    return {**drawn, **{name: torch.as_tensor(value).expand_as(drawn[name]) for name, value in changed.items()}}


NOTHING = {"hidden": False, "time_out": 0.0, "noise": 0.0, "wander": 0.0, "mains": 0.0}


def test_views_are_a_function_of_seed_and_batch(objective):
    first, again, other = (objective.draw(BatchKey(3, index), 4) for index in (5, 5, 6))
    for name, rows in first.items():
        assert len(rows) == 4
        assert torch.equal(rows, again[name])
    assert not torch.equal(first["first_start"], first["second_start"])
    assert not torch.equal(first["first_start"], other["first_start"])


def test_a_record_has_the_same_view_whichever_process_makes_it(objective):
    signal, drawn = torch.randn(8, 12, 500), objective.draw(BatchKey(0, 0), 8)
    whole = objective.view("second", signal, drawn)
    half = objective.view("second", signal[4:], {name: rows[4:] for name, rows in drawn.items()})
    assert torch.equal(whole[4:], half)


def test_a_view_to_which_nothing_happens_is_a_stretch_of_the_record(physiological):
    signal = torch.randn(3, 12, 500)
    drawn = drawn_of(physiological, 3, **NOTHING, start=torch.tensor([0, 7, 250]))
    view = physiological.apply(signal, drawn, torch.ones(1, 12, 1))
    for row, start in enumerate((0, 7, 250)):
        assert torch.equal(view[row], signal[row, :, start : start + 250])


def test_each_change_happens_to_half_of_the_views_and_no_further_than_stated(physiological, config):
    drawn = drawn_of(physiological)
    happened = {name: drawn[name].reshape(len(drawn[name]), -1).abs().sum(1) > 0 for name in ("noise", "wander", "mains")}
    happened["time_out"] = drawn["time_out"][:, 1] > drawn["time_out"][:, 0]
    for name, applied in happened.items():
        assert applied.float().mean().item() == pytest.approx(0.5, abs=0.03), name
    assert (drawn["time_out"][:, 1] - drawn["time_out"][:, 0]).max() <= 0.5
    assert drawn["time_out"].min() >= 0
    assert drawn["time_out"].max() <= 1
    assert drawn["noise"].max() <= 0.2
    assert max(drawn["wander"].abs().max(), drawn["mains"].abs().max()) <= 0.3
    assert drawn["start"].min() == 0
    assert drawn["start"].max() == 250


def test_lead_ii_is_kept_and_others_are_hidden_a_quarter_of_the_time(physiological, config):
    hidden = drawn_of(physiological)["hidden"].float().mean(dim=0)
    second = config.lead_names.index("II")
    assert hidden[second] == 0
    others = np.delete(hidden.numpy(), second)
    np.testing.assert_allclose(others, 0.25, atol=0.03)


def test_hidden_leads_and_time_outs_are_the_mean(physiological):
    signal = torch.randn(2, 12, 500)
    hidden = torch.zeros(2, 12, dtype=torch.bool)
    hidden[0, 3] = True
    drawn = drawn_of(physiological, 2, **{**NOTHING, "hidden": hidden, "time_out": torch.tensor([[0.0, 0.0], [0.2, 0.6]])})
    view = physiological.apply(signal, drawn, torch.ones(1, 12, 1))
    assert (view[0, 3] == 0).all()
    assert (view[0] != 0).all(dim=1).sum() == 11
    assert (view[1, :, 50:150] == 0).all()
    assert (view[1, :, :50] != 0).all()
    assert (view[1, :, 150:] != 0).all()


def test_disturbances_are_in_millivolts(physiological):
    drawn = drawn_of(physiological, 1, **{**NOTHING, "wander": 0.3, "wander_hz": 0.4, "wander_phase": 0.0, "start": 0})
    units = torch.linspace(2, 10, 12)[None, :, None]  # normalised units per millivolt
    view = physiological.apply(torch.zeros(1, 12, 500), drawn, units)[0]
    expected = 0.3 * torch.sin(2 * math.pi * 0.4 * torch.arange(250) / 100)
    torch.testing.assert_close(view / units[0], expected.expand(12, -1), atol=1e-5, rtol=0)


def test_seeded_noise_is_normal_and_a_function_of_its_seed():
    seeds = torch.tensor([1, 2, 1 << 61])
    noise = seeded_normal(seeds, (12, 1000))
    assert torch.equal(noise[1:2], seeded_normal(seeds[1:2], (12, 1000)))
    for row in noise:
        assert kstest(row.flatten().numpy(), "norm").pvalue > 0.001
    correlation = np.corrcoef(noise.flatten(1).numpy()) - np.eye(3)
    assert np.abs(correlation).max() < 0.04
    lagged = np.corrcoef(noise[0].flatten()[:-1], noise[0].flatten()[1:])[0, 1]
    assert abs(lagged) < 0.04


def test_a_resized_crop_is_drawn_out_to_the_whole_length(config):
    views = LiteratureViews()
    ramp = torch.arange(500.0).expand(2, 12, 500)
    drawn = drawn_of(views, 2, time_out=0.0, share=torch.tensor([0.5, 1.0]), start=torch.tensor([0.25, 0.0]))
    view = views.apply(ramp, drawn, torch.ones(1, 12, 1))
    torch.testing.assert_close(view[0, 0], 0.25 * 499 + 0.5 * torch.arange(500.0), atol=1e-3, rtol=0)
    torch.testing.assert_close(view[1, 0], torch.arange(500.0), atol=1e-3, rtol=0)


def test_crops_of_the_literature_stay_within_the_record(config):
    drawn = drawn_of(LiteratureViews())
    assert drawn["share"].min() >= 0.5
    assert (drawn["start"] + drawn["share"]).max() <= 1
    assert drawn["start"].min() >= 0


def test_a_view_is_a_whole_number_of_patches(make_objective):
    with pytest.raises(ValueError, match=r"view_duration=2\.55 s is 255 samples at 100 Hz, no whole number of patches"):
        make_objective("simclr", view_duration=2.55)
    with pytest.raises(ValueError, match=r"view_duration=6.0 must lie between 0 and crop_duration=5.0 s"):
        make_objective("simclr", view_duration=6.0)
    with pytest.raises(ValueError, match="use a larger batch_size instead of gradient_accumulation_steps"):
        make_objective("simclr", gradient_accumulation_steps=2)


@pytest.mark.parametrize(("sampling_rate", "frequencies"), [(500, {50.0, 60.0}), (110, {50.0}), (100, {0.0})])
def test_mains_is_what_the_rate_can_hold_and_no_constant(config, sampling_rate, frequencies):
    config.sampling_rate = sampling_rate
    views = PhysiologicalViews(config, 250)
    drawn = drawn_of(views)
    assert set(drawn["mains_hz"].tolist()) == frequencies
    if frequencies == {0.0}:
        still = {
            **drawn_of(views, 5, **{name: value for name, value in NOTHING.items() if name != "mains"}),
            "mains": torch.ones(5, 12),
        }
        assert (views.apply(torch.zeros(5, 12, 500), still, torch.ones(1, 12, 1)) == 0).all()


def test_amplitude_free_records_have_been_filtered(config):
    config.amplitude_free = True
    views = PhysiologicalViews(config, 250)
    loud = drawn_of(views, 3, **{**NOTHING, "wander": 1.0, "mains": 1.0})
    assert (views.apply(torch.zeros(3, 12, 500), loud, torch.ones(1, 12, 1)) == 0).all()


def test_views_are_clipped_as_records_are(objective):
    loud = objective.draw(BatchKey(0, 0), 3) | {"first_wander": torch.full((3, 12), 100.0)}
    view = objective.view("first", torch.randn(3, 12, 500), loud)
    assert view.abs().max() == 5


def test_without_lead_ii_the_first_is_kept(make_objective):
    config = make_objective("random").config
    config.lead_names = ["V1"]
    assert not drawn_of(PhysiologicalViews(config, 250))["hidden"].any()


def test_batch_norm_is_that_of_pytorch():
    torch.manual_seed(0)
    ours, theirs = BatchNorm(8), torch.nn.BatchNorm1d(8)
    rows = 2 + 3 * torch.randn(64, 8)
    torch.testing.assert_close(ours(rows), theirs(rows), atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.eval()(rows), theirs.train()(rows), atol=1e-5, rtol=0)


def test_a_projector_is_normalised_between_its_layers_only():
    kinds = [type(layer).__name__ for layer in projector([4, 8, 8, 2], batch_norm=True)]
    assert kinds == ["Linear", "BatchNorm", "GELU", "Linear", "BatchNorm", "GELU", "Linear"]
    assert [type(layer).__name__ for layer in projector([4, 8, 2], batch_norm=False)] == ["Linear", "GELU", "Linear"]
