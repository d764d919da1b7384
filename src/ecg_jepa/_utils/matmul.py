"""Matrix products of float32 on CPUs, by the faster of the two libraries that PyTorch brings for them."""

import torch

# Of sums of a few hundred products: float32 comes to 1e-6 of the largest, numbers rounded to bfloat16 to 1e-3.
_ROUNDING = 1e-5


def use_faster_products() -> bool:
    """
    Have oneDNN multiply float32 matrices on the CPU in this process, where that is faster than what PyTorch does by itself, and
    as exact.

    PyTorch leaves these products to MKL, which uses AVX-512 on CPUs of Intel alone. On those of AMD that have it, oneDNN, which
    PyTorch brings as well, takes less than half the time (BENCHMARKS.md). PyTorch's only word for it,
    `torch.backends.mkldnn.matmul.fp32_precision = "bf16"`, also allows oneDNN to round to bfloat16 on its way. It does so in the
    matrix units of AMX: where there are some, nothing is done here, and where there are none, products are looked at before they
    are trusted. Sums are rounded in another order than before. A setting of the user's own is left as it is.

    Returns:
        Whether oneDNN multiplies from now on.
    """
    setting = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    if setting.fp32_precision == "none" and onednn_is_faster():
        setting.fp32_precision = "bf16"
        if not products_are_exact():
            setting.fp32_precision = "none"
    return onednn_multiplies()


def onednn_multiplies() -> bool:
    """Whether PyTorch was told so."""
    return bool(torch.backends.mkldnn.matmul.fp32_precision == "bf16")  # type: ignore[attr-defined]


def onednn_is_faster() -> bool:
    """Whether this is a CPU of AMD with AVX-512 and without AMX, and PyTorch has both libraries."""
    cpu = torch.cpu.get_capabilities()
    both = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    amx = cpu.get("amx_tile") or cpu.get("amx_bf16")
    return both and bool(cpu.get("avx512_f")) and not amx and "AMD" in cpu.get("cpu_name", "")


def products_are_exact() -> bool:
    """Whether products as a layer and its gradients take them, and as attention does, are those of float32."""
    generator = torch.Generator().manual_seed(0)
    tokens, weight, queries = (torch.randn(shape, generator=generator) for shape in ((1600, 192), (192, 768), (48, 200, 64)))
    pairs = [(tokens, weight), (tokens.T, tokens), (tokens, weight[:, :192].T), (queries, queries.transpose(1, 2))]
    return all(_is_exact(left, right, left @ right) for left, right in pairs)


def _is_exact(left: torch.Tensor, right: torch.Tensor, product: torch.Tensor) -> bool:
    expected = left.double() @ right.double()
    return bool((product - expected).abs().max() <= _ROUNDING * expected.abs().max())
