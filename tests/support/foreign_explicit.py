"""Files of torch whose sparsity is stated: masks, thresholds, tickets, as their authors' code writes them.

Where torch itself prunes (``torch.nn.utils.prune``, ``torch.ao.pruning``) the files come from torch.
"""

import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from support.foreign import (
    ORIGINS,
    Sample,
    State,
    ist,
    prefixed,
    prunable,
    pruned,
    random_masks,
    randomised,
    wrapped,
)

CLASSES = 7
Masks = Mapping[str, Tensor]


def small(seed: int = 0) -> tuple[nn.Module, dict[str, Tensor]]:
    """The smallest network, Distiller's ResNet-20 at a quarter of its width, and a copy of its state."""
    module = randomised(ORIGINS["resnet_cifar_distiller"].make(CLASSES), seed)
    return module, {key: tensor.clone() for key, tensor in module.state_dict().items()}


def small_with(state: State) -> nn.Module:
    module, _ = small()
    module.load_state_dict(dict(state))
    return module


def zeros_of(masks: Masks) -> int:
    return sum(int((~kept).sum()) for kept in masks.values())


# --- AC/DC, GMP, WoodFisher ---------------------------------------------------------------------------------------


@contextmanager
def classes_of(names: Sequence[str]) -> Generator[dict[str, type]]:
    """Classes of modules that are nowhere else, ``optimization.sgd.SGD``, for as long as a file is being written."""
    made: dict[str, type] = {}
    modules: set[str] = set()
    for name in names:
        path, _, cls = name.rpartition(".")
        for part in (path.partition(".")[0], path):
            if part not in sys.modules:
                sys.modules[part] = ModuleType(part)
                modules.add(part)
        made[name] = type(cls, (), {"__module__": path})
        setattr(sys.modules[path], cls, made[name])
    try:
        yield made
    finally:
        for module in modules:
            del sys.modules[module]


def save_acdc(path: Path, state: State, masks: Masks | None, arch: str = "resnet20_cifar", **more: object) -> Path:
    """AC/DC's ``best_sparse_checkpoint.ckpt``; with ``masks`` None, all ones: its ``best_dense`` of a dense phase."""
    sgd, schedule = "optimization.sgd.SGD", "optimization.lr_schedulers.CosineLR"
    with classes_of([sgd, schedule]) as classes:
        root = ist(
            prefixed(wrapped(state, masks), "module."),
            arch,
            "cifar10",
            optimizer={"type": classes[sgd], "state_dict": {"state": {}, "param_groups": [{"lr": 0.1, "params": [0]}]}},
            lr_scheduler={"type": classes[schedule], "state_dict": {"last_epoch": 99}},
            **more,
        )
        torch.save(root, path)
    return path


def save_woodfisher(path: Path, state: State, masks: Masks) -> Path:
    """torch 1.2: the older container, no masks of biases, optimiser state by the addresses of Python's objects."""
    root = ist(
        prefixed(wrapped(state, masks, bias_masks=False), "module."),
        "resnet20_cifar",
        "cifar10",
        optimizer={
            "type": torch.optim.SGD,
            "state_dict": {"state": {47782606294760: {"momentum_buffer": torch.ones(3)}}, "param_groups": []},
        },
        lr_scheduler={"type": torch.optim.lr_scheduler.ExponentialLR, "state_dict": {"gamma": 0.1}},
    )
    root["model_config"] = {**root["model_config"], "use_butterfly": False}  # type: ignore[dict-item]
    torch.save(root, path, _use_new_zipfile_serialization=False)
    return path


def ist_wrapped(folder: Path) -> Sample:
    _, state = small()
    masks = random_masks(state, 0.3)
    path = save_acdc(folder / "best_sparse_checkpoint.ckpt", state, masks)
    return Sample(path, small_with(pruned(state, masks)), zeros_of(masks))


# --- STR ----------------------------------------------------------------------------------------------------------


class StrConv(nn.Conv2d):
    """Kusupati et al. (2020), equation 1, as its repository's ``STRConv`` computes it."""

    def __init__(self, like: nn.Conv2d, threshold: float) -> None:
        super().__init__(
            like.in_channels,
            like.out_channels,
            like.kernel_size,  # type: ignore[arg-type]
            like.stride,  # type: ignore[arg-type]
            like.padding,  # type: ignore[arg-type]
            groups=like.groups,
            bias=like.bias is not None,
        )
        self.load_state_dict(like.state_dict())
        self.sparseThreshold = nn.Parameter(torch.full((1, 1), threshold))

    def sparse_weight(self) -> Tensor:
        return torch.sign(self.weight) * torch.relu(torch.abs(self.weight) - torch.sigmoid(self.sparseThreshold))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x, self.sparse_weight(), self.bias, self.stride, self.padding, 1, self.groups)


def with_thresholds(module: nn.Module, threshold: float, *, dense: Sequence[str] = ()) -> nn.Module:
    """Every convolution an STR convolution, in place, but those named in ``dense``."""
    for name, layer in list(module.named_modules()):
        if isinstance(layer, nn.Conv2d) and name.removeprefix("body.") not in dense:
            parent, _, own = name.rpartition(".")
            setattr(module.get_submodule(parent), own, StrConv(layer, threshold))
    return module.eval()


def str_tree(module: nn.Module, arch: str = "ResNet50") -> dict[str, object]:
    """``model_best.pth``. Never but under DataParallel."""
    return {
        "epoch": 100,
        "arch": arch,
        "state_dict": prefixed(module.state_dict(), "module."),
        "best_acc1": 74.3,
        "best_acc5": 92.0,
        "best_train_acc1": 70.0,
        "best_train_acc5": 88.0,
        "optimizer": {"state": {}, "param_groups": []},
        "curr_acc1": "Not evaluated",
        "curr_acc5": "Not evaluated",
    }


def str_native(folder: Path) -> Sample:
    """STR's classifier is a convolution; a linear one here has no threshold, as with ``--last-layer-dense``."""
    module, _ = small()
    # Weights have a spread of 1 / sqrt(fan-in), 0.05 to 0.5: sigmoid(-2.6) = 0.069 prunes some of every layer.
    with_thresholds(module, -2.6)
    path = folder / "model_best.pth"
    torch.save(str_tree(module, "resnet20_cifar"), path)
    layers = [layer for layer in module.modules() if isinstance(layer, StrConv)]
    return Sample(path, module, sum(int((layer.sparse_weight() == 0).sum()) for layer in layers))


# --- torch.nn.utils.prune, LTH-T ----------------------------------------------------------------------------------


def prune_by_torch(module: nn.Module, masks: Masks) -> nn.Module:
    """torch's own pruning, in place: ``weight`` becomes ``weight_orig`` and ``weight_mask``."""
    for key, kept in masks.items():
        layer, _, name = key.rpartition(".")
        prune.custom_from_mask(module.get_submodule(layer), name, kept.float())
    return module


def torch_prune(folder: Path) -> Sample:
    module, state = small()
    masks = random_masks(state, 0.3)
    path = folder / "pruned.pt"
    torch.save(prune_by_torch(module, masks).state_dict(), path)
    return Sample(path, module, zeros_of(masks))


def lth_masks(state: State, density: float = 0.3) -> dict[str, Tensor]:
    """Convolutions but the first; never the classifier."""
    masks = random_masks(state, density)
    return {key: masks[key] for key in masks if "conv" in key and key != "conv1.weight"}


def lth_tree(trained: nn.Module, initial: State, masks: Masks, **more: object) -> dict[str, object]:
    """``7model_best.pth.tar`` of main_imp_imagenet.py; prunes ``trained`` in place."""
    state = prune_by_torch(trained, masks).state_dict()
    return {
        "epoch": 10,
        "state": 7,
        "arch": "resnet20_cifar",
        "state_dict": state,
        "mask": {f"module.{key}": tensor for key, tensor in state.items() if key.endswith("_mask")},
        "best_acc1": 70.1,
        "optimizer": {"state": {}, "param_groups": []},
        "if_pruned": True,
        "init_weight": OrderedDict(initial),
        **more,
    }


def lottery_ticket(folder: Path) -> Sample:
    trained, _ = small(seed=1)
    _, initial = small(seed=2)
    masks = lth_masks(initial)
    path = folder / "7model_best.pth.tar"
    torch.save(lth_tree(trained, initial, masks), path)
    return Sample(path, small_with(pruned(initial, masks)), zeros_of(masks), said={"ticket": "initial"})


# --- M-FAC --------------------------------------------------------------------------------------------------------


def mfac_list(state: State) -> list[str]:
    """What main_prun.py prunes: names with ``conv`` or ``fc`` and without ``bias``; no shortcut's convolution."""
    return [key for key in state if ("conv" in key or "fc" in key) and "bias" not in key]


def mfac_tree(state: State, masks: Masks, pruned_in_order: Sequence[str]) -> dict[str, object]:
    """``PREFIX-last.pth``: one flat bool mask over the parameters that were pruned, end to end."""
    parts = [masks.get(key, torch.ones_like(state[key], dtype=torch.bool)).reshape(-1) for key in pruned_in_order]
    return {"model": OrderedDict(state), "mask": torch.cat(parts), "epoch": 3}


def mfac(folder: Path) -> Sample:
    _, state = small()
    masks = {key: mask for key, mask in random_masks(state, 0.3).items() if key in mfac_list(state)}
    path = folder / "resnet20-last.pth"
    torch.save(mfac_tree(state, masks, mfac_list(state)), path)
    return Sample(path, small_with(pruned(state, masks)), zeros_of(masks))


# --- torch.ao -----------------------------------------------------------------------------------------------------


def sparsified(module: nn.Module, keys: Sequence[str], level: float = 0.6) -> dict[str, object]:
    """The file of a network that a sparsifier of torch's prunes in place, weight by weight, by magnitude."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.ao.pruning import BaseSparsifier

        class Magnitude(BaseSparsifier):
            def update_mask(self, module: nn.Module, tensor_name: str, **kwargs: object) -> None:
                stored = getattr(module.parametrizations, tensor_name)
                size = stored.original.abs()
                stored[0].mask.data = (size > torch.quantile(size, level)).float()

        sparsifier = Magnitude({})
        sparsifier.prepare(module, [{"tensor_fqn": key} for key in keys])
        sparsifier.step()
    module.eval()
    return {"model": module.state_dict(), "sparsifier": sparsifier.state_dict()}


def ao_pruning(folder: Path) -> Sample:
    module, state = small()
    keys = [key for key in prunable(state) if key.startswith("layer")]
    tree = sparsified(module, keys)
    path = folder / "sparsified.pt"
    torch.save(tree, path)
    masks = tree["sparsifier"]["state"]  # type: ignore[index,call-overload]
    return Sample(path, module, sum(int((entry["mask"] == 0).sum()) for entry in masks.values()))


def observed(folder: Path) -> Sample:
    """SparseML's QAT: a pruned network that torch prepared to be quantised."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.ao.quantization import get_default_qat_qconfig, prepare_qat

        module, state = small()
        masks = random_masks(state, 0.3)
        honest = pruned(state, masks)
        module.load_state_dict(honest)
        module.train()
        module.qconfig = get_default_qat_qconfig("fbgemm")  # type: ignore[assignment]
        prepared = prepare_qat(module)
    path = folder / "model.pth"
    torch.save({"state_dict": prepared.state_dict(), "epoch": -1, "recipe": "!QuantizationModifier"}, path)
    return Sample(path, small_with(honest), zeros_of(masks))


# --- Distiller, GraNet --------------------------------------------------------------------------------------------


def distiller_tree(state: State, masks: Masks) -> dict[str, object]:
    """Distiller's ``.pth.tar``: every parameter has an entry in the scheduler, most of them None."""
    parameters = [key for key in state if "running" not in key and "num_batches" not in key]
    return {
        "epoch": 179,
        "arch": "resnet20_cifar",
        "state_dict": prefixed(state, "module."),
        "best_top1": 91.7,
        "optimizer": {"state": {}, "param_groups": []},
        "compression_sched": {
            "masks_dict": {f"module.{key}": masks[key].float() if key in masks else None for key in parameters}
        },
    }


def distiller(folder: Path) -> Sample:
    _, state = small()
    masks = {key: mask for key, mask in random_masks(state, 0.3).items() if "conv2" in key}
    path = folder / "checkpoint.pth.tar"
    torch.save(distiller_tree(state, masks), path, _use_new_zipfile_serialization=False)
    return Sample(path, small_with(pruned(state, masks)), zeros_of(masks))


def plain(folder: Path) -> Sample:
    """GraNet, ITOP and SNFS: a ``Masking`` object that is not saved has made the zeros."""
    _, state = small()
    masks = random_masks(state, 0.3)
    honest = pruned(state, masks)
    path = folder / "best.pth.tar"
    root = {"epoch": 100, "arch": "resnet20_cifar", "state_dict": honest, "best_prec1": 0.9, "optimizer": {}}
    torch.save(root, path)
    return Sample(path, small_with(honest), zeros_of(masks))


SAMPLES: Mapping[str, Callable[[Path], Sample]] = {
    "ist_wrapped": ist_wrapped,
    "str_native": str_native,
    "lottery_ticket": lottery_ticket,
    "torch_prune": torch_prune,
    "mfac": mfac,
    "ao_pruning": ao_pruning,
    "distiller": distiller,
    "observed": observed,
    "plain": plain,
}
