"""Bring somebody else's checkpoint in: recognise it, account for every key, rebuild its mask, say what was done."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict

from sparse_transfer.checkpoints.assembling import assemble, skeleton
from sparse_transfer.checkpoints.claims import check_claim, check_nm
from sparse_transfer.checkpoints.file import Origin, is_ours, load, naming
from sparse_transfer.checkpoints.formats import Decoded, Encoding, Source, Told, encodings, find_source
from sparse_transfer.checkpoints.formats.cram import STATISTICS
from sparse_transfer.checkpoints.formats.declared import class_warnings, trained_on
from sparse_transfer.checkpoints.formats.mapping import Mapped, map_tensors
from sparse_transfer.checkpoints.formats.masks import Masking, select_, settle
from sparse_transfer.checkpoints.formats.recognising import Recognised, recognise
from sparse_transfer.checkpoints.import_report import ImportReport, Reading
from sparse_transfer.checkpoints.readers.archives import unpacked
from sparse_transfer.checkpoints.readers.container import Container
from sparse_transfer.checkpoints.readers.opening import open_container
from sparse_transfer.core.errors import UserError
from sparse_transfer.core.files import sha256
from sparse_transfer.models import Architecture, Head, Network, Preprocessing, sparsities
from sparse_transfer.sparsity import prunable_weights

Triple = tuple[float, float, float]

OURS = "sparse_transfer"
OURS_BECAUSE = "it is a checkpoint of ours"
HEAD_ALONE = {"weight", "bias"}
MEAN_AND_STD = "mean and std"  # in each assumption about them, which --statistics takes the place of


@dataclass(frozen=True)
class Imported:
    """A foreign network as ours, its origin, and the report; ``save(network, path, origin=origin)`` writes it."""

    network: Network
    origin: Origin
    report: ImportReport

    def normalised_by(self, mean: Triple, std: Triple) -> "Imported":
        """The same, for pictures normalised by these: a data set's own, by which the paper's full runs were trained."""
        facts = replace(self.network.backbone.preprocessing, mean=mean, std=std, channel_order="rgb")
        network = replace(self.network, backbone=replace(self.network.backbone, preprocessing=facts))
        assumptions = tuple(text for text in self.report.assumptions if MEAN_AND_STD not in text)
        return Imported(network, self.origin, replace(self.report, preprocessing=facts, assumptions=assumptions))

    def with_statistics(self, network: Network, pictures: int) -> "Imported":
        """``network`` in its place: the same, but for BatchNorm statistics that were estimated on so many pictures."""
        warnings = tuple(warning for warning in self.report.warnings if warning != STATISTICS)
        note = f"the BatchNorm statistics were estimated anew, on {pictures:,} pictures"
        return Imported(network, self.origin, replace(self.report, notes=(*self.report.notes, note), warnings=warnings))


@dataclass(frozen=True)
class Said:
    """What the caller says about the file; everything else is found out."""

    architecture: Architecture | None = None
    backbone: Path | None = None
    sparsity: float | None = None
    classes: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None
    method: str | None = None
    licence: str | None = None
    nm: tuple[int, int] | None = None
    ticket: str | None = None


class Hints(TypedDict, total=False):
    """What a foreign file may leave to its reader to say; each as ``import_checkpoint`` has it."""

    architecture: str | Architecture | None
    backbone: str | Path | None
    sparsity: float | None
    method: str | None
    nm: tuple[int, int] | None
    ticket: str | None


def import_checkpoint(
    path: str | Path,
    *,
    architecture: str | Architecture | None = None,
    backbone: str | Path | None = None,
    sparsity: float | None = None,
    classes: Sequence[str] | None = None,
    preprocessing: Preprocessing | None = None,
    method: str | None = None,
    licence: str | None = None,
    nm: tuple[int, int] | None = None,
    ticket: str | None = None,
) -> Imported:
    """Read a checkpoint in any known format, ours included. Nothing from the file is executed, nothing is written.

    path: a file, a folder of a checkpoint of several files, or an archive (tar, gzip) of one.
    architecture: overrides what the keys cannot tell (``resnet50,stride=v1``), or names the network where its keys
        are its own (``timm:resnet50d``).
    backbone: a checkpoint of ours, for a file that holds a linear head alone.
    sparsity: what the origin claims, in [0, 1]; half a point away from every way of counting it is refused.
    classes: the head's class names in label order.   preprocessing: instead of the format's.
    method, licence: kept in the origin. A method that prunes by a rule (CrAM, SR-STE, DNW) has its rule applied, at
        ``sparsity`` or ``nm``, to a file of dense weights.
    nm: (N, M), N weights kept of every M: what such a rule is to keep, or else a claim that is checked.
    ticket: ``initial`` or ``trained`` weights of a lottery ticket (LTH-T).

    Raises:
        UserError: the file is damaged, of no known format, or does not fit; all that is wrong with its tensors at once.

    Example:
        >>> imported = import_checkpoint("rigl_erk5x_90.pth", sparsity=0.9)      # doctest: +SKIP
        >>> save(imported.network, "rigl90.safetensors", origin=imported.origin)  # doctest: +SKIP
    """
    path = Path(path)
    said = Said(
        architecture=Architecture.parse(architecture) if isinstance(architecture, str) else architecture,
        backbone=None if backbone is None else Path(backbone),
        sparsity=sparsity,
        classes=tuple(classes or ()),
        preprocessing=preprocessing,
        method=method,
        licence=licence,
        nm=nm,
        ticket=ticket,
    )
    if sparsity is not None and not 0 <= sparsity < 1:
        raise UserError(f"a claimed sparsity of {sparsity:g}", do="it is a share in [0, 1): 80 % is 0.8")
    if nm is not None and not 0 < nm[0] < nm[1]:
        raise UserError(f"an N:M pattern of {nm[0]}:{nm[1]}", do="2:4 keeps two weights of every four")
    with unpacked(path) as file:
        imported = _import_file(file, said)
    return imported if file == path else _from_archive(imported, path, file.name)


def _import_file(path: Path, said: Said) -> Imported:
    if is_ours(path):
        with naming(path):
            return _import_ours(path, said)
    container = open_container(path)
    with naming(path):
        return import_container(container, container.sha256(), said)


def _from_archive(imported: Imported, archive: Path, name: str) -> Imported:
    """The archive is the file that its publisher gives out: name and SHA-256 are its."""
    name, digest = f"{archive.name}/{name}", sha256(archive)
    origin = imported.origin if imported.report.encoding == OURS else replace(imported.origin, file=name, sha256=digest)
    return replace(imported, origin=origin, report=replace(imported.report, file=name, sha256=digest))


def import_container(container: Container, digest: str, said: Said) -> Imported:
    """The steps of an import, in order, from an opened file. ``digest``: the file's SHA-256, for the origin."""
    source = find_source(container, Told(said.sparsity, said.nm, said.ticket, said.method))
    name, encoding, because = _encoding(source)
    decoded = encoding.decode(source)
    if set(decoded.weights) <= HEAD_ALONE and "weight" in decoded.weights:
        return _import_head(source, decoded, digest, said)
    if said.backbone is not None:
        raise UserError("the file has a backbone of its own", do="leave out the backbone")
    recognised = _recognised(source, decoded, said.architecture)
    network, mapped, masking = _network(decoded, recognised, said)
    encoding_name = name if masking.evidence == "masks" else masking.evidence
    origin = Origin(
        method=said.method,
        sparsity=said.sparsity,
        file=container.path.name,
        sha256=digest,
        format=f"{encoding_name}/{recognised.name}",
        licence=said.licence,
    )
    reading = Reading(
        file=container.path.name,
        sha256=digest,
        container=container.kind,
        place=source.place,
        prefix=source.prefix,
        encoding=encoding_name,
        encoding_because=because,
        family=recognised.name,
        family_because=recognised.because,
        mapped=mapped.keys,
        dropped=_left_out(source, decoded),
        stand_ins=container.stand_ins,
        masks=masking.done,
        notes=(*recognised.notes, *decoded.notes, *mapped.notes),
        assumptions=decoded.assumptions
        + recognised.assumptions
        + ((*recognised.pictures, *trained_on(source)) if said.preprocessing is None else ()),
        warnings=(*decoded.warnings, *masking.warnings, *class_warnings(source, network.head)),
    )
    return _checked(network, origin, reading, said, evidence=masking.evidence)


def _network(decoded: Decoded, recognised: Recognised, said: Said) -> tuple[Network, Mapped, Masking]:
    """The network with its pruned weights at 0, and how its tensors and its masks were come by."""
    architecture = recognised.architecture
    body = skeleton(architecture)
    mapped = map_tensors(decoded, recognised.family, architecture, body)
    prunable = [*prunable_weights(body), f"{architecture.family.head}.weight"]
    weights = {key: mapped.tensors[key] for key in prunable if key in mapped.tensors}
    masking = settle(weights, mapped.masks, decoded.masks_are)
    for key, kept in masking.kept.items():
        select_(weights[key], kept)
    preprocessing = said.preprocessing or recognised.preprocessing
    network = assemble(architecture, preprocessing, mapped.tensors, masking.kept, said.classes, module=body)
    return network, mapped, masking


def _checked(network: Network, origin: Origin, reading: Reading, said: Said, *, evidence: str = "masks") -> Imported:
    """The network as it comes out, whatever it came from, once what is claimed of it has been found there."""
    counts = sparsities(network)
    check_claim(said.sparsity, counts, evidence)
    check_nm(said.nm, network.masks())
    report = ImportReport(
        **vars(reading),
        architecture=str(network.backbone.architecture),
        preprocessing=network.backbone.preprocessing,
        classes=None if network.head is None else len(network.head.weight),
        claimed=origin.sparsity,
        sparsities=counts,
        licence=origin.licence,
        method=origin.method,
    )
    return Imported(network, origin, report)


def _encoding(source: Source) -> tuple[str, Encoding, str]:
    for name in encodings:
        encoding = encodings.get(name)
        if (because := encoding.recognise(source)) is not None:
            if name != "lottery_ticket":
                _refuse_ticket(source.told.ticket, because)
            return name, encoding, because
    raise AssertionError("the last encoding takes any file")


def _refuse_ticket(ticket: str | None, because: str) -> None:
    if ticket is not None:
        raise UserError(f"--ticket was given and the file is no lottery ticket: {because}", do="leave it out")


def _recognised(source: Source, decoded: Decoded, given: Architecture | None) -> Recognised:
    """The network; what its encoding lacks is said too where its keys are those of none."""
    known = decoded.architecture
    if known is not None and given not in (None, known):
        raise UserError(f"its graph is that of {known}, and --arch says {given}", do="leave --arch out")
    try:
        found = recognise(source, {key: tensor.shape for key, tensor in decoded.weights.items()}, known or given)
    except UserError as error:
        raise UserError(" and ".join([*decoded.problems, error.what]), where=error.where, do=error.do) from None
    if given is None and found.architecture.name in decoded.contradicts:
        raise UserError(
            f"its weights have the names of {found.architecture}, and its graph computes otherwise",
            do="take the .pth file of the same model, or say which network it is with --arch",
        )
    return found


def _left_out(source: Source, decoded: Decoded) -> dict[str, str]:
    beside = {key: why for key, why in source.dropped.items() if key not in decoded.read_beside}
    return {**beside, **decoded.dropped}


def _import_head(source: Source, decoded: Decoded, digest: str, said: Said) -> Imported:
    """A linear head as the transfer code saves it: ``weight`` [C, D] and ``bias`` [C], no backbone."""
    if said.backbone is None:
        raise UserError(
            f"the file holds a linear head alone (weight {list(decoded.weights['weight'].shape)})",
            do="name the imported checkpoint of the backbone it was fitted on with --backbone",
        )
    if decoded.masks:
        raise UserError("the head alone has a mask, which is not read", do="set what it prunes to 0 and save it again")
    base = load(said.backbone)
    if said.architecture not in (None, base.backbone.architecture):
        raise UserError(
            f"its backbone is {base.backbone.architecture}, and --arch says {said.architecture}",
            do="leave --arch out",
        )
    values = {name: tensor.read().float() for name, tensor in decoded.weights.items()}
    for name, value in values.items():
        if not bool(value.isfinite().all()):
            raise UserError(f'"{name}" has values that are NaN or infinite', do="fetch the file again")
    weight = values["weight"]
    width = base.backbone.feature_dim
    if weight.ndim != 2 or weight.shape[1] != width:
        raise UserError(
            f"the head reads {list(weight.shape[1:])} features and {said.backbone} gives {width}",
            do="name the backbone that it was fitted on",
        )
    bias = values.get("bias")
    head = Head(weight, weight.new_zeros(len(weight)) if bias is None else bias, said.classes)
    backbone = replace(base.backbone, preprocessing=said.preprocessing or base.backbone.preprocessing)
    layer = backbone.architecture.family.head
    reading = Reading(
        file=source.container.path.name,
        sha256=digest,
        container=source.container.kind,
        place=source.place,
        prefix=source.prefix,
        encoding="dense",
        encoding_because="a head alone",
        family="linear_head",
        family_because=f"weight and bias alone; its backbone is {said.backbone.name}, digest {base.digest[:12]}…",
        mapped={f"{layer}.{name}": decoded.keys[name] for name in values},
        dropped={**source.dropped, **decoded.dropped},
        stand_ins=source.container.stand_ins,
        masks="the backbone's",
        notes=("the head has no bias: zeros, which is exactly the same",) if bias is None else (),
        assumptions=("the head was fitted on this backbone: nothing in the file says so",),
        warnings=class_warnings(source, head),
    )
    origin = replace(_as_said(base.origin, said), file=reading.file, sha256=digest, format=reading.family)
    return _checked(Network(backbone, head), origin, reading, said)


def _import_ours(path: Path, said: Said) -> Imported:
    """A checkpoint of ours comes in as it is; what the caller says replaces what it says."""
    if said.backbone is not None:
        raise UserError("the file has a backbone of its own", do="leave out the backbone")
    _refuse_ticket(said.ticket, OURS_BECAUSE)
    checkpoint = load(path)
    before = checkpoint.network
    architecture = said.architecture or before.backbone.architecture
    if architecture.name != before.backbone.architecture.name:
        raise UserError(
            f"it holds {before.backbone.architecture} and --arch says {architecture}", do="leave --arch out"
        )
    network = assemble(
        architecture,
        said.preprocessing or before.backbone.preprocessing,
        before.tensors(),
        before.masks(),
        said.classes or (before.head.classes if before.head is not None else ()),
        module=before.backbone.module if architecture == before.backbone.architecture else skeleton(architecture),
    )
    reading = Reading(
        file=path.name,
        sha256=sha256(path),
        container="safetensors",
        encoding=OURS,
        encoding_because=OURS_BECAUSE,
        family=OURS,
        family_because=f"digest {checkpoint.digest[:12]}…",
        mapped={name: name for name in network.tensors()},
        masks=f"{len(network.masks())} masks of the file",
    )
    return _checked(network, _as_said(checkpoint.origin, said), reading, said)


def _as_said(origin: Origin, said: Said) -> Origin:
    """The origin that a checkpoint of ours states, with what the caller says in its place."""
    return replace(
        origin,
        method=said.method or origin.method,
        sparsity=origin.sparsity if said.sparsity is None else said.sparsity,
        licence=said.licence or origin.licence,
    )
