"""PyTorch as an engine, on CPU and on CUDA: the default of feature extraction.

On CPU, of what was measured (docs/log.md), these three stay: BatchNorm folded into the convolution before it,
channels-last memory, and small batches (16), whose activations stay in the cache. oneDNN's fused ReLU, which
``torch.jit.optimize_for_inference`` uses too, is faster still and is not used: it turns NaN into 0.
"""

import copy
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from sparse_transfer.core.errors import UserError
from sparse_transfer.inference.engine import Availability, Numerics, Plan, check_images, dense_nodes, engines
from sparse_transfer.models import Backbone

DTYPES: dict[Numerics, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class TorchEngine:
    """Runs a backbone with PyTorch on ``device`` (``cpu`` or ``cuda``)."""

    name: str
    device: str

    def available(self) -> Availability:
        if self.device == "cuda" and not torch.cuda.is_available():
            return Availability("PyTorch finds no CUDA device", do="use --device cpu")
        return Availability()

    def compile(
        self, backbone: Backbone, *, batch: int, threads: int, input_size: int, numerics: Numerics = "fp32"
    ) -> "TorchCompiled":
        """See ``Engine.compile``. bf16 means weights and activations; a layer sums in float32."""
        self.available().require(f"engine {self.name}")
        module = folded(copy.deepcopy(backbone.module).eval().requires_grad_(False))
        module = module.to(self.device, DTYPES[numerics]).to(memory_format=torch.channels_last)
        return TorchCompiled(module, backbone, Plan(self.name, numerics, batch, threads, input_size))


class TorchCompiled:
    """See ``Compiled``."""

    def __init__(self, module: nn.Module, backbone: Backbone, plan: Plan) -> None:
        self._module: nn.Module | None = module
        self._backbone: Backbone | None = backbone
        self._device = next(iter(module.state_dict().values())).device
        self._plan = plan

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        module, _ = self._open()
        check_images(images, self._plan.batch, self._plan.input_size)
        if not images.flags.writeable or min(images.strides) < 0:
            images = images.copy()  # torch shares memory with neither
        threads = torch.get_num_threads()
        torch.set_num_threads(self._plan.threads)
        try:
            with torch.inference_mode(), exact_float32(self._device):
                on_device = torch.from_numpy(images).to(self._device, DTYPES[self._plan.numerics])
                features: Tensor = module(on_device.contiguous(memory_format=torch.channels_last))
                return features.to("cpu", torch.float32).numpy()
        except torch.OutOfMemoryError:
            raise UserError(
                f"{len(images)} pictures at once do not fit into the memory of the device",
                where=f"engine {self._plan.engine}",
                do=f"use a smaller --batch-size than {self._plan.batch}",
            ) from None
        finally:
            torch.set_num_threads(threads)

    def describe(self) -> Plan:
        """Traced when asked for: it takes longer than to compile."""
        _, backbone = self._open()
        width = DTYPES[self._plan.numerics].itemsize
        nodes = dense_nodes(backbone, self._plan.input_size, f"torch {self._device.type}", width)
        return replace(self._plan, nodes=nodes)

    def close(self) -> None:
        self._module = self._backbone = None

    def _open(self) -> tuple[nn.Module, Backbone]:
        if self._module is None or self._backbone is None:
            raise RuntimeError("this compiled backbone is closed")
        return self._module, self._backbone


def folded(module: nn.Module) -> nn.Module:
    """Fold every BatchNorm into the convolution that alone feeds it; ``module`` is in eval mode and is used up.

    A module that torch.fx cannot trace (control flow on values, as in some of timm's) comes back as it is.
    """
    try:
        traced = fx.symbolic_trace(module)
    except Exception:  # tracing runs the module's own Python, which may raise anything
        return module
    layers = dict(traced.named_modules())
    uses = [node.target for node in traced.graph.nodes if node.op == "call_module"]
    for node in list(traced.graph.nodes):
        norm, before = layers.get(str(node.target)), node.args[0] if node.args else None
        if node.op != "call_module" or not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None:
            continue
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        conv = layers[str(before.target)]
        if not isinstance(conv, nn.Conv2d) or uses.count(node.target) > 1 or uses.count(before.target) > 1:
            continue
        traced.set_submodule(str(before.target), fuse_conv_bn_eval(conv, norm))
        node.replace_all_uses_with(before)
        traced.graph.erase_node(node)
    traced.recompile()
    return traced


def exact_float32(device: torch.device) -> AbstractContextManager[None]:
    """On CUDA, PyTorch rounds the inputs of float32 convolutions to TF32 (10 bits), and those of products if asked to.

    Both stay float32 here, whatever the process has set; so ``fp32`` features are those of a CPU up to the sums' order.
    """
    return nullcontext() if device.type != "cuda" else _float32_on_cuda()


_CUDA_SETTINGS = Lock()  # they are the process's: two backbones at once in threads would put back each other's


@contextmanager
def _float32_on_cuda() -> Generator[None]:
    # Not cudnn.flags: it raises where somebody has set a precision the newer way, as is done here.
    cudnn: Any = torch.backends.cudnn  # a module that is an object at run time
    convolutions, products = cudnn.conv, torch.backends.cuda.matmul
    with _CUDA_SETTINGS:
        before = convolutions.fp32_precision, products.fp32_precision, cudnn.benchmark
        convolutions.fp32_precision, products.fp32_precision, cudnn.benchmark = "ieee", "ieee", True
        try:
            yield
        finally:
            convolutions.fp32_precision, products.fp32_precision, cudnn.benchmark = before


engines.add("torch", TorchEngine("torch", "cpu"))
engines.add("torch-cuda", TorchEngine("torch-cuda", "cuda"))
