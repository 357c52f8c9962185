"""``torch.ao.pruning``: the weights as parametrisations, the masks in the sparsifier's own state.

``FakeSparsity`` keeps its mask out of the state dict, so a file of the model alone has lost its sparsity. It is there
where ``sparsifier.state_dict()`` was saved beside it: ``{"state": {"conv1.weight": {"mask": tensor}}, "groups": ...}``.
Source: torch/ao/pruning/sparsifier/base_sparsifier.py and utils.py.
"""

from collections.abc import Iterator, Mapping

from sparse_transfer.checkpoints.formats.contract import Decoded, Encoding, KeyTable, encodings, translate
from sparse_transfer.checkpoints.formats.masked import without_weight
from sparse_transfer.checkpoints.formats.source import Source
from sparse_transfer.checkpoints.readers.container import LazyTensor, Tree
from sparse_transfer.core.errors import UserError, listed

PARAMETRISED = ".parametrizations."
TABLE = KeyTable(rename=((r"\.parametrizations\.(weight|bias)\.original$", r".\1"),), mask=r"(?!)")  # no key is a mask


def recognise(source: Source) -> str | None:
    keys = [key for key in source.tensors if PARAMETRISED in key]
    return f"{len(keys)} tensors are parametrisations ({listed(keys, most=1)})" if keys else None


def decode(source: Source) -> Decoded:
    found = translate(TABLE, source.tensors)
    if strange := [plain for plain in found.weights.values() if PARAMETRISED in plain]:
        raise UserError(
            f"{len(strange)} tensors are parametrisations other than torch.ao.pruning's ({listed(strange, most=1)})",
            do="make plain weights of them first: torch.nn.utils.parametrize.remove_parametrizations",
        )
    entry, masks = _sparsifier(source)
    if not masks:
        raise UserError(
            "its weights are parametrised by torch.ao.pruning, which keeps the masks in the sparsifier and not in the"
            " model's state dict: what is pruned is not in the file",
            do='save {"model": model.state_dict(), "sparsifier": sparsifier.state_dict()}, or call'
            " sparsifier.squash_mask() before saving",
        )
    weights = {plain: source.tensors[key] for key, plain in found.weights.items()}
    bare = sorted(plain for key, plain in found.weights.items() if key != plain and plain not in masks)
    return Decoded(
        weights=weights,
        keys={plain: key for key, plain in found.weights.items()},
        masks={name: mask for name, mask in masks.items() if name in weights},
        mask_keys={name: f"{entry}.{name}.mask" for name in masks},
        read_beside=(entry,),
        problems=(
            *([f"{len(bare)} parametrised weights have no mask ({listed(bare)})"] if bare else []),
            *without_weight(masks, weights),
        ),
    )


def _sparsifier(source: Source) -> tuple[str, dict[str, LazyTensor]]:
    """The entry that is a sparsifier's state, and its masks by the weight's name; nothing where there is none."""
    for entry, state in _states(source.beside):
        masks = {
            str(name).removeprefix(source.prefix): mask
            for name, values in state.items()
            if isinstance(values, Mapping) and isinstance(mask := values.get("mask"), LazyTensor)
        }
        if masks:
            return entry, masks
    return "", {}


def _states(beside: Mapping[str, Tree]) -> Iterator[tuple[str, Mapping[str | int, Tree]]]:
    """The sparsifier's ``state``, saved under any name or laid out beside the weights."""
    for entry, value in beside.items():
        for state in (value, value.get("state") if isinstance(value, Mapping) else None):
            if isinstance(state, Mapping):
                yield entry, state


encodings.add(
    "ao_pruning",
    Encoding(cite="torch 2.11, torch/ao/pruning/sparsifier/base_sparsifier.py", recognise=recognise, decode=decode),
)
