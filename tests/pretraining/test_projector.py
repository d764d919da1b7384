import torch

from ecg_jepa.pretraining.projector import BatchNorm, projector


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
