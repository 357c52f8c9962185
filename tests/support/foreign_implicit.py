"""Files whose sparsity is a function of weights or scores, as their authors' code saves them.

Their pruning rules are written here from the papers' and repositories' descriptions, in NumPy and by hand, and their
networks run with what the rules leave.
"""

import argparse
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from support.foreign import ConvHead, MobileNet, Sample, State, prefixed, prunable, pruned, randomised
from support.foreign_explicit import CLASSES, Masks, small, small_with, zeros_of

Tree = dict[str, object]


# --- rules --------------------------------------------------------------------------------------------------------


def keep_n_of_m(weight: Tensor, n: int, m: int, order: str) -> Tensor:
    """Of each M neighbours the N largest; ``nhwc``: along the inputs, ``nchw``: as stored. Group by group."""
    values = weight.abs().numpy()
    axes = (0, 2, 3, 1) if order == "nhwc" and weight.ndim == 4 else tuple(range(weight.ndim))
    laid = values.transpose(axes)
    kept = np.zeros(laid.size, dtype=bool)
    flat = laid.reshape(-1)
    for start in range(0, flat.size, m):
        best = sorted(range(m), key=lambda position: flat[start + position])[m - n :]
        kept[[start + position for position in best]] = True
    return torch.from_numpy(np.ascontiguousarray(kept.reshape(laid.shape).transpose(np.argsort(axes))))


def keep_but_smallest(values: Tensor, share: float) -> Tensor:
    """All but the int(share · n) smallest magnitudes."""
    magnitudes = np.abs(values.numpy()).reshape(-1)
    kept = np.ones(magnitudes.size, dtype=bool)
    kept[np.argsort(magnitudes)[: int(share * magnitudes.size)]] = False
    return torch.from_numpy(kept.reshape(values.shape))


def keep_above(state: State, keys: list[str], share: float) -> Masks:
    """One threshold over all: the ceil((1 - share) · n)-th largest magnitude, which is itself pruned."""
    everything = np.sort(np.concatenate([np.abs(state[key].numpy()).reshape(-1) for key in keys]))[::-1]
    threshold = everything[math.ceil(everything.size * (1 - share)) - 1]
    return {key: torch.from_numpy(np.abs(state[key].numpy()) > threshold) for key in keys}


def keep_blocks(scores: Tensor, share: float, side: int, shape: tuple[int, ...]) -> Tensor:
    """Blocks whose score reaches the percentile, laid out with ``kron`` and cut."""
    ordered = np.sort(scores.numpy().reshape(-1))
    share = min(share, 1 - 1 / ordered.size)
    threshold = ordered[round(0.01 * (share * 100) * (ordered.size - 1))]
    blocks = np.kron(scores.numpy() >= threshold, np.ones((side,) * scores.ndim, dtype=bool))
    return torch.from_numpy(blocks[tuple(slice(size) for size in shape)].copy())


def noise(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# --- CrAM, SR-STE, DNW: dense files -------------------------------------------------------------------------------


def cram_tree(state: State) -> Tree:
    """``best_checkpoint_eval.pth``: unwrapped, dense."""
    return {"model_config": {"arch": "resnet20_cifar", "dataset": "cifar10"}, "model_state_dict": state}


def cram(folder: Path) -> Sample:
    _, state = small()
    masks = keep_above(state, prunable(state), 0.7)
    path = folder / "best_checkpoint_eval.pth"
    torch.save(cram_tree(state), path)
    return Sample(path, small_with(pruned(state, masks)), zeros_of(masks), said={"method": "CrAM", "sparsity": 0.7})


def convolutions(state: State) -> list[str]:
    return [key for key in prunable(state) if state[key].ndim == 4]


def sr_ste_tree(state: State) -> Tree:
    """``model.pth-119``; "model" is a name here, not the tensors."""
    return {"epoch": 120, "model": "resnet20", "state_dict": prefixed(state, "module."), "best_prec1": 77.0}


def sr_ste(folder: Path) -> Sample:
    _, state = small()
    masks = {key: keep_n_of_m(state[key], 2, 4, "nhwc") for key in convolutions(state)}
    path = folder / "model-best.pth"
    torch.save(sr_ste_tree(state), path)
    return Sample(path, small_with(pruned(state, masks)), zeros_of(masks), said={"method": "SR-STE", "nm": (2, 4)})


def conv_headed() -> tuple[nn.Module, dict[str, Tensor]]:
    """A small network whose classifier is a 1×1 convolution without bias."""
    module = randomised(ConvHead(MobileNet(4, None), 256, CLASSES))
    return module, {key: tensor.clone() for key, tensor in module.state_dict().items()}


def conv_headed_with(state: State) -> nn.Module:
    module, _ = conv_headed()
    module.load_state_dict({key if key.startswith("fc.") else f"body.{key}": value for key, value in state.items()})
    return module.eval()


def dnw(folder: Path) -> Sample:
    """NVIDIA's training script; file called by what it keeps."""
    _, state = conv_headed()
    masks = {key: keep_but_smallest(state[key], 0.6) for key in convolutions(state)}
    path = folder / "allsparse40.pth.tar"
    root = {"epoch": 90, "state_dict": prefixed(state, "module."), "best_prec1": 77.5, "optimizer": {}}
    torch.save(root, path, _use_new_zipfile_serialization=False)
    return Sample(
        path, conv_headed_with(pruned(state, masks)), zeros_of(masks), size=33, said={"method": "dnw", "sparsity": 0.6}
    )


# --- LBC ----------------------------------------------------------------------------------------------------------


def lbc_tree(state: State, n: int, m: int, seed: int = 0) -> tuple[Tree, Masks]:
    """One way left of the combinations of each group; all convolutions but the first. With the masks that it means."""
    ways = list(combinations(range(m), n))
    lists = torch.tensor([[float(position in way) for position in range(m)] for way in ways])
    generator = torch.Generator().manual_seed(seed)
    out: dict[str, Tensor] = OrderedDict()
    masks: dict[str, Tensor] = {}
    for key, tensor in state.items():
        out[key] = tensor
        if tensor.ndim != 4 or key == "conv1.weight":
            continue
        chosen = torch.randint(len(ways), (tensor.numel() // m,), generator=generator)
        alpha = torch.zeros(len(chosen), len(ways))
        alpha[torch.arange(len(chosen)), chosen] = torch.rand(len(chosen), generator=generator) - 1.1  # signed, not 0
        layer = key.removesuffix(".weight")
        out[f"{layer}.alpha"], out[f"{layer}.index_list"] = alpha, lists.clone()
        o, i, h, w = tensor.shape
        kept = torch.zeros(len(chosen), m, dtype=torch.bool)
        for group, way in enumerate(chosen.tolist()):
            kept[group, list(ways[way])] = True
        masks[key] = kept.reshape(o, h, w, i).permute(0, 3, 1, 2)
    return {"state_dict": out, "best_acc": 92.0, "epoch": 120, "args.k": 5, "optimizer": {}}, masks


def lbc(folder: Path) -> Sample:
    _, state = small()
    root, masks = lbc_tree(state, 2, 4)
    path = folder / "model_best.pt"
    torch.save(root, path)
    return Sample(path, small_with(pruned(state, masks)), zeros_of(masks), said={"nm": (2, 4)})


# --- hidden-networks ----------------------------------------------------------------------------------------------


def hidden_tree(state: State, scores: Mapping[str, Tensor]) -> Tree:
    """``model_best.pth``; BatchNorms without weight and bias."""
    bare = {key.removesuffix("running_mean") for key in state if key.endswith("running_mean")}
    out: dict[str, Tensor] = OrderedDict()
    for key, tensor in state.items():
        if key.rpartition(".")[0] + "." in bare and key.endswith(("weight", "bias")):
            continue
        out[key] = tensor
        if key in scores:
            out[key.removesuffix("weight") + "scores"] = scores[key]
    return {"epoch": 100, "arch": "cNet", "state_dict": prefixed(out, "module."), "best_acc1": 68.6, "optimizer": {}}


def without_affine(state: State) -> dict[str, Tensor]:
    """The state as its BatchNorms act when they have no weight and bias."""
    bare = {key.removesuffix("running_mean") for key in state if key.endswith("running_mean")}
    return {
        key: torch.full_like(tensor, float(key.endswith("weight")))
        if key.rpartition(".")[0] + "." in bare and key.endswith(("weight", "bias"))
        else tensor
        for key, tensor in state.items()
    }


def signed_constant(state: State) -> dict[str, Tensor]:
    """Signed Kaiming constant: sign(w) · sqrt(2 / fan-in)."""
    return {
        key: tensor.sign() * (2 / tensor[0].numel()) ** 0.5 if tensor.ndim == 4 else tensor
        for key, tensor in state.items()
    }


def hidden_networks(folder: Path) -> Sample:
    _, state = conv_headed()
    state = signed_constant(state)
    scores = {key: noise(tuple(state[key].shape), seed) for seed, key in enumerate(convolutions(state))}
    masks = {key: keep_but_smallest(score, 0.7) for key, score in scores.items()}
    path = folder / "resnet50-usc-unsigned.pth"
    torch.save(hidden_tree(state, scores), path, _use_new_zipfile_serialization=False)
    network = conv_headed_with(pruned(without_affine(state), masks))
    return Sample(path, network, zeros_of(masks), size=33, said={"sparsity": 0.7})


# --- SuperBlock ---------------------------------------------------------------------------------------------------


def block_scores(shape: tuple[int, ...], side: int, seed: int) -> Tensor:
    return noise(tuple(math.ceil(size / side) for size in shape), seed)


def superblock_state(state: State, keys: list[str], side: int, scale: float = 1.0, shift: float = 0.0) -> State:
    out: dict[str, Tensor] = OrderedDict()
    for seed, (key, tensor) in enumerate(state.items()):
        out[key] = tensor
        if key in keys:
            layer = key.removesuffix(".weight")
            out[f"{layer}.scores"] = block_scores(tuple(tensor.shape), side, seed)
            out[f"{layer}.shift"], out[f"{layer}.scale"] = torch.tensor([shift]), torch.tensor([scale])
    return out


def superblock_tree(stored: State, **args: object) -> Tree:
    """torchvision's reference training script; ``args`` is an object of a class."""
    return {"model": stored, "optimizer": {}, "epoch": 299, "args": argparse.Namespace(model="vit_b_16", **args)}


def superblock(folder: Path) -> Sample:
    """Linear layers and 1×1 convolutions, at sparsities of their own, quantised weights shifted and scaled."""
    _, state = small()
    keys = [key for key in prunable(state) if state[key][0, 0].numel() == 1]
    stored = superblock_state(state, keys, 4, scale=2.0, shift=0.01)
    shares = {2: 0.5, 4: 0.75}
    masks = {
        key: keep_blocks(stored[key.removesuffix("weight") + "scores"], shares[state[key].ndim], 4, state[key].shape)
        for key in keys
    }
    path = folder / "model_299.pth"
    torch.save(superblock_tree(stored, sparsity_linear=0.5, sparsity_conv1x1=0.75, sp_linear_tile_size=4), path)
    effective = {key: tensor * 2 + 0.01 if key in keys else tensor for key, tensor in state.items()}
    return Sample(path, small_with(pruned(effective, masks)), zeros_of(masks))


class SupermaskLinear(nn.Linear):
    """A linear layer whose weight is masked when, and only when, the layer is called."""

    def __init__(self, layer: nn.Linear, share: float, side: int, seed: int) -> None:
        super().__init__(layer.in_features, layer.out_features)
        self.load_state_dict(layer.state_dict())
        self.share, self.side = share, side
        self.scores = nn.Parameter(block_scores(tuple(self.weight.shape), side, seed))
        self.shift = nn.Parameter(torch.zeros(1), requires_grad=False)
        self.scale = nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, input: Tensor) -> Tensor:
        mask = keep_blocks(self.scores.detach(), self.share, self.side, tuple(self.weight.shape))
        return functional.linear(input, (self.weight * self.scale + self.shift) * mask, self.bias)


def supermasked(module: nn.Module, share: float, side: int) -> nn.Module:
    """Every linear layer replaced, the attention's ``out_proj`` and the classifier too, as ``apply_supermask`` does."""
    linear = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, nn.Linear)]
    for seed, (name, layer) in enumerate(linear):
        parent, _, child = name.rpartition(".")
        module.get_submodule(parent).add_module(child, SupermaskLinear(layer, share, side, seed))
    return module.eval()


SAMPLES: Mapping[str, Callable[[Path], Sample]] = {
    "cram": cram,
    "sr_ste": sr_ste,
    "dnw": dnw,
    "lbc": lbc,
    "hidden_networks": hidden_networks,
    "superblock": superblock,
}
