"""Where in a foreign file the network's tensors are (research: detection, 6.0), and what else lies beside them."""

from collections.abc import Mapping
from dataclasses import dataclass

from sparse_transfer.checkpoints.catalog import letters
from sparse_transfer.checkpoints.readers.container import Container, LazyTensor, StandIn, Tree
from sparse_transfer.core.errors import UserError, listed

# The places are tried in this order. The averaged weights of timm and torchvision (state_dict_ema, model_ema) are
# another network than the one trained: they are taken where they are alone, else only named in the report.
PLACES = ("model_state_dict", "state_dict", "model", "net", "params", "weights")
AVERAGED = ("state_dict_ema", "model_ema")
# DataParallel, torch.compile, the transfer code's DeepSparse, Lightning
WRAPPERS = ("module.", "_orig_mod.", "_orig_module.", "model.")
AVERAGES = "n_averaged"  # the counter of torch.optim.swa_utils.AveragedModel, beside "module.…"
QUERY = "encoder_q."  # MoCo: the network that is trained; encoder_k follows it, and a queue lies beside them
BARE_SHARE = 0.8
LARGEST_SETTING = 1e6  # a share or a size in a file is far below; infinity, NaN and what no float holds are none


@dataclass(frozen=True)
class Told:
    """What the caller says of how the sparsity is made, for encodings whose files hold no zeros and no mask.

    sparsity: the share to prune, in [0, 1).   nm: (N, M), N kept of every M.
    ticket: which weights of a lottery ticket are meant, ``initial`` or ``trained``.
    method: the pruning method, free text; the name of one that prunes by a rule (``SR-STE``) asks for that rule.
    """

    sparsity: float | None = None
    nm: tuple[int, int] | None = None
    ticket: str | None = None
    method: str | None = None

    def is_method(self, name: str) -> bool:
        """Whether the method is ``name``, however it is spelt: SR-STE, sr_ste and SRSTE are one."""
        return self.method is not None and letters(self.method) == letters(name)


NOTHING_TOLD = Told()


@dataclass(frozen=True)
class Source:
    """A foreign file's tensors under the keys of the network itself.

    tensors: key less any wrapper's prefix -> tensor.   prefix: what was taken off every key, "" for nothing.
    place: the entry that held them, "" where they are the file itself.
    beside: the file's other entries.   dropped: key -> why it is no tensor of the network.
    told: what the caller says of the file, for an encoding that cannot do without.
    """

    container: Container
    tensors: Mapping[str, LazyTensor]
    place: str
    prefix: str
    beside: Mapping[str, Tree]
    dropped: Mapping[str, str]
    told: Told = NOTHING_TOLD

    @property
    def declared(self) -> str | None:
        """The network's name as the file states it: model_config.arch (IST), arch, arch_key (SparseML)."""
        config = self.beside.get("model_config")
        candidates = [config.get("arch") if isinstance(config, Mapping) else None]
        candidates += [self.beside.get("arch"), self.beside.get("arch_key")]
        return next((name for name in candidates if isinstance(name, str) and name), None)

    def setting(self, name: str) -> float | None:
        """A number that the file keeps among the settings of its training, under ``args`` or ``config``."""
        for entry in ("args", "config"):
            value = self.beside.get(entry)
            content = value.state if isinstance(value, StandIn) else value  # an argparse.Namespace is never made
            number = content.get(name) if isinstance(content, Mapping) else None
            if isinstance(number, int | float) and not isinstance(number, bool) and abs(number) < LARGEST_SETTING:
                return float(number)
        return None

    @property
    def dataset(self) -> str | None:
        """The dataset that the file says its head is for (IST)."""
        config = self.beside.get("model_config")
        name = config.get("dataset") if isinstance(config, Mapping) else None
        return name if isinstance(name, str) else None


def find_source(container: Container, told: Told = NOTHING_TOLD) -> Source:
    """Find the tensors. Raises ``UserError`` where there are none, or where a whole module stands in their place."""
    root, path = container.root, container.path
    if not isinstance(root, Mapping):
        what = "a single tensor" if isinstance(root, LazyTensor) else f"a {type(root).__name__}"
        raise UserError(f"the file holds {what}, not tensors by name", where=path, do="get its state dict instead")
    entries = {str(key): value for key, value in root.items()}
    place = next((name for name in (*PLACES, *AVERAGED) if has_tensors(entries.get(name))), "")
    if not place and sum(isinstance(value, LazyTensor) for value in entries.values()) < BARE_SHARE * len(entries):
        _refuse(container, entries)
    found = entries[place] if place else root
    assert isinstance(found, Mapping)
    everything = {str(key): value for key, value in found.items()}
    tensors = {key: value for key, value in everything.items() if isinstance(value, LazyTensor)}
    if not tensors:
        raise UserError("the file holds no tensor", where=path, do="fetch it again")
    dropped = {key: "not a tensor" for key in everything if key not in tensors}
    if tensors.pop(AVERAGES, None) is not None:
        dropped[AVERAGES] = "a counter of averages"
    prefix = shared_prefix(tensors)
    if any(key.startswith(f"{prefix}{QUERY}") for key in tensors):
        tensors, apart = _query_encoder(tensors, prefix)
        prefix, dropped = prefix + QUERY, dropped | apart
    if place:
        dropped |= {key: _why_beside(key) for key in entries if key != place}
    return Source(
        container,
        {key.removeprefix(prefix): tensor for key, tensor in tensors.items()},
        place,
        prefix,
        {key: value for key, value in entries.items() if place and key != place},
        dropped,
        told,
    )


def _query_encoder(tensors: Mapping[str, LazyTensor], prefix: str) -> tuple[dict[str, LazyTensor], dict[str, str]]:
    """MoCo's backbone, and why the rest of the file is none of it. He et al. (2020); facebookresearch/moco."""
    own = {
        key: tensor
        for key, tensor in tensors.items()
        if key.startswith(prefix + QUERY) and not key.startswith(f"{prefix}{QUERY}fc.")
    }
    projection = "MoCo's projection, which is no classifier"
    others = {key: projection if key.startswith(prefix + QUERY) else "MoCo's other encoder" for key in tensors}
    return own, {key: why for key, why in others.items() if key not in own}


def has_tensors(value: Tree) -> bool:
    return isinstance(value, Mapping) and any(isinstance(item, LazyTensor) for item in value.values())


def shared_prefix(keys: Mapping[str, object]) -> str:
    """Wrappers' prefixes that all keys share, outermost first; a key of the network itself may contain them too."""
    prefix = ""
    while True:
        more = [wrapper for wrapper in WRAPPERS if all(key.startswith(prefix + wrapper) for key in keys)]
        # model.0.0 is a layer of the sequential MobileNet, and no wrapper is around it
        if not more or (more[0] == "model." and all(key[len(f"{prefix}model.") :][:1].isdigit() for key in keys)):
            return prefix
        prefix += more[0]


def _why_beside(key: str) -> str:
    return "averaged weights, another network than the one trained" if key in AVERAGED else "not part of the network"


def _refuse(container: Container, entries: Mapping[str, Tree]) -> None:
    objects = [name for name in PLACES if isinstance(entries.get(name), StandIn)]
    if objects:
        raise UserError(
            f'the entry "{objects[0]}" is a whole object, not tensors by name',
            where=container.path,
            do="get its state dict instead",
        )
    raise UserError(
        f"no network is found among its {len(entries)} entries ({listed(list(entries), most=10)})",
        where=container.path,
        do="the weights are looked for under " + ", ".join(f'"{name}"' for name in PLACES),
    )
