import itertools

import numpy as np
import pandas as pd
import pytest
from raw_databases import STANDARD, ecg

from ecg_jepa.pretraining.progress_plots import plot_masked_prediction, plot_pretraining, plot_reconstruction, plot_views


def test_course_of_pretraining():
    log = pd.DataFrame({"step": [10, 20], "loss": [0.8, 0.4], "target_std": [0.7, 0.6], "target_effective_rank": [30, 20]})
    figure = plot_pretraining(log.assign(learning_rate=[1e-3, 1e-4]))
    shown = [axis for axis in figure.axes if axis.get_lines()]  # as many panels as there are measures
    assert [axis.get_lines()[0].get_ydata()[1] for axis in shown] == [0.4, 0.6, 20, 1e-4]
    for axis in shown:  # from 0 on, or a collapse would look like noise, but a line at 0 would not be seen on the axis
        assert -0.05 * axis.get_ylim()[1] < axis.get_ylim()[0] < 0


def test_held_out_records_have_curves_of_their_own():
    steps = [{"step": s, "loss": 1 / s, "target_std": 0.5, "target_effective_rank": 9, "learning_rate": 1e-3} for s in (1, 2, 3)]
    evaluation = {"step": 2, "eval_loss": 2.0, "eval_target_std": 0.4, "eval_target_effective_rank": 8}
    figure = plot_pretraining(pd.DataFrame([*steps[:2], evaluation, steps[2]]))
    training, held_out = figure.axes[0].get_lines()
    assert training.get_xydata().tolist() == [[1, 1], [2, 0.5], [3, 1 / 3]]
    assert held_out.get_xydata().tolist() == [[2, 2.0]]
    assert figure.axes[0].get_ylim()[1] > 2
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["training", "held out"]
    figure.draw_without_rendering()
    assert not any(legend.get_window_extent().overlaps(axis.get_window_extent()) for axis in figure.axes)
    assert [len(axis.get_lines()) for axis in figure.axes] == [2, 2, 2, 1, 0, 0]


def test_masks_and_errors():
    errors = np.random.default_rng(0).random((4, 50))
    errors[0, 10:20] = np.nan
    figure = plot_masked_prediction(ecg(1250, 1)[1] / 1000, 500, errors, "masks", "lead II (mV)")
    signal, error, image, _ = figure.axes
    assert signal.get_lines()[0].get_xdata()[-1] == 1249 / 500
    bars = error.patches[0].get_data()
    np.testing.assert_array_equal(bars.values, np.where(np.isnan(errors[0]), 0, errors[0]))
    assert bars.edges[[0, 10, -1]].tolist() == [0, 0.5, 2.5]
    np.testing.assert_array_equal(image.images[0].get_array().filled(np.nan), errors)
    # What is shaded is what is hidden: 0 to 0.5 s and 1 to 2.5 s.
    (shade,) = signal.collections
    assert [path.get_extents().intervalx.tolist() for path in shade.get_paths()] == [[0, 0.5], [1, 2.5]]
    assert all(axis.get_ylabel() for axis in figure.axes)


def strips(axis):
    """Lowest and highest value of each lead that is drawn, from the top to the bottom."""
    lines = [line for line in axis.get_lines() if len(line.get_xdata()) > 2]
    return [(np.nanmin(line.get_ydata()), np.nanmax(line.get_ydata())) for line in lines]


@pytest.mark.parametrize("factor", [1, 15])
def test_leads_do_not_reach_into_each_other(factor):
    signal = ecg(1000, 1) / 500
    signal[4] *= factor
    made = np.where(np.arange(1000) < 300, np.nan, 1.5 * signal)
    (axis,) = plot_reconstruction(signal, made, 500, STANDARD).axes
    both = strips(axis)
    rows = [
        (min(low, other_low), max(high, other_high))
        for (low, high), (other_low, other_high) in zip(both[:12], both[12:], strict=True)
    ]
    assert all(upper[0] > lower[1] for upper, lower in itertools.pairwise(rows))
    assert axis.get_ylim()[0] < rows[-1][0]
    assert rows[0][1] < axis.get_ylim()[1]
    for views in plot_views(signal[None], signal[None, :, :500], -2 * signal[None, :, :500], 500, STANDARD).axes:
        rows = strips(views)
        assert all(upper[0] > lower[1] for upper, lower in itertools.pairwise(rows))
    np.testing.assert_allclose(axis.get_lines()[0].get_ydata(), signal[0])  # in standard deviations, whatever the room
