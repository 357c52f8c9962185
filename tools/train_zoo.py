"""Train the demo's tiny networks on CIFAR-10: a dense ResNet-20, then 80 % and 90 % sparse ones pruned from it.

    python tools/train_zoo.py CIFAR10.npz OUT [--dense-epochs 14] [--sparse-epochs 4] [--threads 2]

CIFAR10.npz holds x_train [50000, 32, 32, 3] uint8, y_train, x_test, y_test, classes. About an hour on one core of a
2026 server CPU with bfloat16. The sparse networks come from gradual magnitude pruning, all layers of the backbone
together, from the dense one to 80 % and from there to 90 % (Zhu & Gupta, 2017: sparsity rises with the cube of the
time left, during the first half of the epochs). This script stands alone until `finetune` can do its work.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from sparse_transfer.checkpoints.file import Origin, save
from sparse_transfer.models import Backbone, Head, Network, Preprocessing
from sparse_transfer.sparsity import Mask, prunable_weights

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)  # CIFAR-10's own, as published with the paper's code
BATCH = 128
SEED = 21


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--dense-epochs", type=int, default=14)
    parser.add_argument("--sparse-epochs", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(SEED)
    args.out.mkdir(parents=True, exist_ok=True)
    with np.load(args.data, allow_pickle=False) as arrays:
        train = torch.from_numpy(arrays["x_train"]), torch.from_numpy(arrays["y_train"]).long()
        test = torch.from_numpy(arrays["x_test"]), torch.from_numpy(arrays["y_test"]).long()
        classes = tuple(str(name) for name in arrays["classes"])

    backbone = Backbone.create("resnet20")
    module = nn.Sequential(backbone.module, nn.Linear(backbone.feature_dim, len(classes)))
    module = module.to(memory_format=torch.channels_last)
    for name, sparsity, epochs, lr in (
        ("resnet20-dense", 0.0, args.dense_epochs, 0.2),
        ("resnet20-gmp80", 0.8, args.sparse_epochs, 0.08),
        ("resnet20-gmp90", 0.9, args.sparse_epochs, 0.08),
    ):
        state = args.out / f"{name}.state.pt"
        if state.exists():
            module.load_state_dict(torch.load(state, weights_only=True))
        else:
            train_one(module, train, epochs=epochs, peak_lr=lr, sparsity=sparsity)
            torch.save(module.state_dict(), state)
        accuracy = evaluate(module, test)
        network = finished(backbone, module, classes)
        digest = save(
            network,
            args.out / f"{name}.safetensors",
            encoding="packed",
            origin=Origin(
                method="dense" if not sparsity else "gradual magnitude pruning",
                sparsity=sparsity,
                format="tools/train_zoo.py",
                licence="Apache-2.0",
            ),
        )
        print(f"{name}: {accuracy:.2%} top-1 on the {len(test[1]):,} test pictures, digest {digest[:12]}", flush=True)


def train_one(module: nn.Module, data: tuple[Tensor, Tensor], *, epochs: int, peak_lr: float, sparsity: float) -> None:
    """SGD with a one-cycle rate; where ``sparsity`` > 0 the mask tightens during the first half."""
    images, labels = data
    steps_per_epoch = len(labels) // BATCH
    total = epochs * steps_per_epoch
    optimiser = torch.optim.SGD(module.parameters(), lr=peak_lr, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=peak_lr, total_steps=total, pct_start=0.25, anneal_strategy="linear", final_div_factor=1e3
    )
    backbone = module.get_submodule("0")
    start = density_of_zeros(backbone)
    mask = Mask.from_zeros(backbone) if start > 0 else Mask.none()
    module.train()
    began = time.perf_counter()
    for step in range(total):
        if step % steps_per_epoch == 0:
            order = torch.randperm(len(labels))
        chosen = order[step % steps_per_epoch * BATCH :][:BATCH]
        if sparsity and step % 50 == 0 and step <= total // 2:
            mask = tightened(backbone, target(step / (total // 2), start, sparsity))
        with torch.autocast("cpu", torch.bfloat16):
            logits = module(augmented(images[chosen]))
        loss = nn.functional.cross_entropy(logits.float(), labels[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        mask.apply_(backbone)
        schedule.step()
        if step % 100 == 99:
            print(f"step {step + 1}/{total}  loss {loss.item():.3f}  {time.perf_counter() - began:.0f} s", flush=True)
    if sparsity:
        mask.audit(backbone)
    module.eval()


def target(progress: float, start: float, end: float) -> float:
    """Sparsity at a share of the ramp: end + (start - end)(1 - progress)³ (Zhu & Gupta, 2017, equation 1)."""
    return end + (start - end) * (1 - min(progress, 1.0)) ** 3


def density_of_zeros(backbone: nn.Module) -> float:
    weights = prunable_weights(backbone).values()
    return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)


def tightened(backbone: nn.Module, sparsity: float) -> Mask:
    """Prune the smallest |w| of all layers together until ``sparsity`` of them are gone; zeros stay gone."""
    weights = {name: weight.detach() for name, weight in prunable_weights(backbone).items()}
    magnitudes = torch.cat([weight.abs().flatten() for weight in weights.values()])
    threshold = magnitudes.kthvalue(max(1, round(sparsity * magnitudes.numel()))).values
    return Mask({name: weight.abs() > threshold for name, weight in weights.items()}, backbone)


def augmented(images: Tensor) -> Tensor:
    """[B, 32, 32, 3] uint8 -> [B, 3, 32, 32]: mirrored half the time, shifted up to 4 px, normalised."""
    batch = normalised(images)
    batch = torch.where(torch.rand(len(batch), 1, 1, 1) < 0.5, batch.flip(3), batch)
    padded = nn.functional.pad(batch, (4, 4, 4, 4))
    dy, dx = (int(shift) for shift in torch.randint(0, 9, (2,)))  # one shift a batch: cheap, and enough here
    return padded[:, :, dy : dy + 32, dx : dx + 32].contiguous(memory_format=torch.channels_last)


def normalised(images: Tensor) -> Tensor:
    batch = images.permute(0, 3, 1, 2).float() / 255
    return (batch - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


@torch.no_grad()
def evaluate(module: nn.Module, data: tuple[Tensor, Tensor]) -> float:
    module.eval()
    images, labels = data
    correct = sum(
        int((module(normalised(images[i : i + 500])).argmax(1) == labels[i : i + 500]).sum())
        for i in range(0, len(labels), 500)
    )
    return correct / len(labels)


def finished(backbone: Backbone, module: nn.Module, classes: tuple[str, ...]) -> Network:
    """The trained module as a checkpointable network; every zero of the backbone is a pruned one."""
    linear = module.get_submodule("1")
    assert isinstance(linear, nn.Linear)
    head = Head(linear.weight.detach().clone(), linear.bias.detach().clone(), classes)
    preprocessing = Preprocessing(resize=32, crop=32, mean=MEAN, std=STD)
    trained = module.get_submodule("0").to(memory_format=torch.contiguous_format)
    return Network(replace(backbone, preprocessing=preprocessing, mask=Mask.from_zeros(trained)), head)


if __name__ == "__main__":
    main()
