import torch

from ecg_jepa.pretraining.projection import BatchNorm, projection


def test_batch_norm_is_that_of_pytorch():
    torch.manual_seed(0)
    ours, theirs = BatchNorm(8), torch.nn.BatchNorm1d(8)
    for _ in range(3):
        rows = 2 + 3 * torch.randn(64, 8)
        torch.testing.assert_close(ours(rows), theirs(rows), atol=1e-5, rtol=0)
    ours.eval(), theirs.eval()
    # PyTorch averages variances with one record less: 64 / 63 of ours.
    torch.testing.assert_close(ours(rows), theirs(rows), atol=0.0, rtol=0.01)


def test_a_projection_is_normalised_between_its_layers_only():
    kinds = [type(layer).__name__ for layer in projection([4, 8, 8, 2], batch_norm=True)]
    assert kinds == ["Linear", "BatchNorm", "GELU", "Linear", "BatchNorm", "GELU", "Linear"]
    assert [type(layer).__name__ for layer in projection([4, 8, 2], batch_norm=False)] == ["Linear", "GELU", "Linear"]
