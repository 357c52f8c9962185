"""Reader of TensorFlow.js layers models: model.json and its shards, under their Keras names and layouts."""

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def read_tfjs(folder: Path) -> dict[str, Tensor]:
    """Keras name -> float32 tensor in Keras' layout (HWIO kernels); the manifest's order, not the files', decides."""
    tensors = {}
    for group in json.loads((folder / "model.json").read_text())["weightsManifest"]:
        raw = b"".join((folder / shard).read_bytes() for shard in group["paths"])
        offset = 0
        for entry in group["weights"]:
            count = int(np.prod(entry["shape"]))
            values = np.frombuffer(raw, entry["dtype"], count, offset).reshape(entry["shape"])
            tensors[entry["name"]] = torch.from_numpy(values.copy())
            offset += values.nbytes
    return tensors


def keras_mobilenet_v1(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Keras' MobileNetV1 under the names of ``mobilenet_v1``, head included (research/methods.md 7.4)."""

    def batchnorm(theirs: str, ours: str) -> dict[str, Tensor]:
        names = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
        return {f"{ours}.{new}": tensors[f"{theirs}/{old}"] for old, new in names.items()}

    state = {"model.0.0.weight": tensors["conv1/kernel"].permute(3, 2, 0, 1), **batchnorm("conv1_bn", "model.0.1")}
    for i in range(1, 14):
        state[f"model.{i}.0.weight"] = tensors[f"conv_dw_{i}/depthwise_kernel"].permute(2, 3, 0, 1)
        state[f"model.{i}.3.weight"] = tensors[f"conv_pw_{i}/kernel"].permute(3, 2, 0, 1)
        state |= batchnorm(f"conv_dw_{i}_bn", f"model.{i}.1") | batchnorm(f"conv_pw_{i}_bn", f"model.{i}.4")
    state["fc.weight"] = tensors["conv_preds/kernel"].flatten(0, 2).T
    state["fc.bias"] = tensors["conv_preds/bias"]
    return {name: tensor.contiguous() for name, tensor in state.items()}
