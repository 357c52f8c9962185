"""How long does it take to bring in a wrapped ResNet-50 of 200 MB, and how much memory?

The file is AC/DC's format, made here: every convolution and linear layer with a float32 mask beside its weight, and the
optimiser's classes; the same tensors as safetensors; and RigL's network with masks as a TensorFlow bundle. Each
measurement is a process of its own, because the first call is the one that a user sees. Python's bytecode is there, as
it is wherever the package has run once:

- detection: from ``import torch`` done to encoding and family told, our own modules' import included;
- import: ``import_checkpoint`` from the file to the network, with its SHA-256 and its report;
- memory: the most anonymous memory that the import held above what the process had before it;
- save: the checkpoint of ours, packed, as ``sparse-transfer import`` writes it;
- ``torch.load`` of the same file, which checks nothing, to compare.

    python benchmarks/bench_import.py [--sparsity 0.9] [--repeats 5] [--threads 1] [--save]
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import measure
import torch
from safetensors.torch import save_file

MB = 1e6
# What is measured of each container; an import is the same work in all of them once the tensors are read.
CONTAINERS = {
    "zip": ("detection", "import", "torch.load"),
    "legacy": ("detection", "import", "torch.load"),
    "safetensors": ("detection", "import"),
    "tf-bundle": ("detection", "import"),
}


def main() -> None:
    parser = measure.arguments(__doc__)
    parser.add_argument("--sparsity", type=float, default=0.9)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--child", nargs=2, metavar=("STEP", "FILE"), help="one measurement, used by itself")
    options = parser.parse_args()
    measure.use_threads(options.threads)
    if options.child is not None:
        print(json.dumps(CHILDREN[options.child[0]](Path(options.child[1]))))
        return

    result: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = f"{folder}/bytecode"
        for container, steps in CONTAINERS.items():
            path, tensors_bytes = write(Path(folder), container, options.sparsity)
            found: dict[str, list[float]] = {}
            for step in steps:
                child(step, path, options.threads)  # writes the bytecode
            for _ in range(options.repeats):  # A B C A B C: a busy minute hits all of them alike
                for step in steps:
                    for name, value in child(step, path, options.threads).items():
                        found.setdefault(name, []).append(value)
            peak = max(found["import, peak MB"])
            result[container] = {
                "file": f"{tensors_bytes / MB:.1f} MB of tensors",
                **{name: spread(values) for name, values in found.items()},
                "peak over the file's tensors": round(peak * MB / tensors_bytes, 2),
            }
    result["settings"] = f"resnet50, {options.sparsity:.0%} sparse, wrapped, {options.repeats} processes a measurement"
    measure.report("import", options.threads, result, save=options.save)


def write(folder: Path, container: str, sparsity: float) -> tuple[Path, int]:
    """A ResNet-50 with a mask to each layer: where it is, and the bytes of its tensors."""
    path = folder / container
    if container == "tf-bundle":
        from support.foreign_tf import RiglResNet50, bundle, random_masks, with_masks

        graph = RiglResNet50(1000)
        state = with_masks(graph, random_masks(graph, 1 - sparsity))
        path = bundle(path, state)
    else:
        state = wrapped(sparsity)
        if container == "safetensors":
            save_file(state, path)
        else:
            tree = {
                "epoch": 99,
                "model_config": {"arch": "resnet50", "dataset": "imagenet"},
                "model_state_dict": state,
                "optimizer": {"type": torch.optim.SGD, "state_dict": {"state": {}, "param_groups": []}},
            }
            torch.save(tree, path, _use_new_zipfile_serialization=container == "zip")
    return path, sum(tensor.nbytes for tensor in state.values())


def wrapped(sparsity: float) -> dict[str, torch.Tensor]:
    """A wrapped ResNet-50, random weights and masks."""
    from torchvision.models import resnet50

    state: dict[str, torch.Tensor] = {}
    generator = torch.Generator().manual_seed(0)
    for key, tensor in resnet50().state_dict().items():
        layer, _, name = key.rpartition(".")
        if tensor.ndim >= 2:
            state[f"module.{layer}._weight_mask"] = (torch.rand(tensor.shape, generator=generator) >= sparsity).float()
            state[f"module.{layer}._layer.{name}"] = torch.randn(tensor.shape, generator=generator)
        elif layer == "fc":
            state["module.fc._bias_mask"], state["module.fc._layer.bias"] = torch.ones_like(tensor), tensor
        else:
            state[f"module.{key}"] = tensor
    return state


def child(step: str, path: Path, threads: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--threads", str(threads), "--child", step, str(path)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def detection(path: Path) -> dict[str, float]:
    began, busy = time.perf_counter(), measure.processor_seconds()
    from sparse_transfer.checkpoints.formats import encodings, find_source
    from sparse_transfer.checkpoints.formats.recognising import recognise
    from sparse_transfer.checkpoints.readers.opening import open_container

    imported = time.perf_counter()
    source = find_source(open_container(path))
    encoding = next(encodings.get(name) for name in encodings if encodings.get(name).recognise(source) is not None)
    shapes = {key: tensor.shape for key, tensor in encoding.decode(source).weights.items()}
    found = recognise(source, shapes, None)
    assert found.architecture.name == "resnet50"
    return {
        "detection, s": time.perf_counter() - began,
        "detection, processor s": measure.processor_seconds() - busy,
        "of which our modules, s": imported - began,
    }


def whole_import(path: Path) -> dict[str, float]:
    from sparse_transfer.checkpoints.file import save
    from sparse_transfer.checkpoints.importing import import_checkpoint

    with measure.anonymous_peak() as peak:
        began, busy = time.perf_counter(), measure.processor_seconds()
        imported = import_checkpoint(path)
        seconds, processor, most = time.perf_counter() - began, measure.processor_seconds() - busy, peak()
    began = time.perf_counter()
    save(imported.network, path.with_suffix(".ours"), origin=imported.origin)
    return {
        "import, s": seconds,
        "import, processor s": processor,
        "import, peak MB": most / MB,
        "save, s": time.perf_counter() - began,
    }


def plain_load(path: Path) -> dict[str, float]:
    with torch.serialization.safe_globals([torch.optim.SGD]), measure.anonymous_peak() as peak:
        began = time.perf_counter()
        tree = torch.load(path, map_location="cpu", weights_only=True)
        found = {"torch.load, s": time.perf_counter() - began, "torch.load, peak MB": peak() / MB}
        del tree  # held until here, so that its memory counts
        return found


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g}, n = {len(values)})"


CHILDREN: dict[str, Callable[[Path], dict[str, float]]] = {
    "detection": detection,
    "import": whole_import,
    "torch.load": plain_load,
}


if __name__ == "__main__":
    main()
