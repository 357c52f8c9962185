"""How a training is run: what it calls its arithmetic."""

import pytest

from sparse_transfer.training.settings import Amp, Execution


@pytest.mark.parametrize(
    ("device", "amp", "numerics"),
    [("cpu", "off", "fp32"), ("cuda", "off", "tf32"), ("cpu", "bf16", "bf16"), ("cuda", "fp16", "fp16")],
)
def test_runs_of_another_arithmetic_are_other_runs(device: str, amp: Amp, numerics: str) -> None:
    """PyTorch's default on CUDA is to round convolutions' inputs to TF32."""
    assert Execution("cuda" if device == "cuda" else "cpu", amp).numerics == numerics
