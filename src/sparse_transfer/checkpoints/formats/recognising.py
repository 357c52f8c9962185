"""Which network a file holds, from its keys, from what it says of itself and from what the caller says."""

from dataclasses import dataclass

from sparse_transfer.checkpoints.formats.contract import Evidence, KeyFamily, Shapes, key_families
from sparse_transfer.checkpoints.formats.declared import declared_architecture
from sparse_transfer.checkpoints.formats.resnets import BICUBIC, RIGL_PREPROCESSING
from sparse_transfer.checkpoints.formats.source import Source
from sparse_transfer.core.errors import UserError, listed
from sparse_transfer.models import Architecture, Preprocessing


@dataclass(frozen=True)
class Recognised:
    """The family of names, the network, and by what they were told.

    assumptions: what was taken for granted about the network.   pictures: the same about the preprocessing.
    """

    name: str
    family: KeyFamily
    because: str
    architecture: Architecture
    preprocessing: Preprocessing
    notes: tuple[str, ...]
    assumptions: tuple[str, ...]
    pictures: tuple[str, ...]


def recognise(source: Source, shapes: Shapes, given: Architecture | None) -> Recognised:
    """Ask each family in turn. ``given`` overrides what the keys cannot tell, and names what no family knows.

    Raises:
        UserError: no family knows the keys, or keys, file and caller disagree about the network.
    """
    name, evidence = _family(shapes, given)
    family = key_families.get(name)
    declared = None if given is not None else declared_architecture(source, name, family, evidence)
    architecture = _architecture(name, evidence, declared, given)
    pictures = family.pictures
    preprocessing = family.preprocessing or architecture.preprocessing
    if architecture.args.get("pool") == "same":  # RigL's, whatever the names
        pictures, preprocessing = BICUBIC, RIGL_PREPROCESSING
    is_named = given is not None or declared is not None
    stated = source.declared
    notes = [f'the file calls its network "{stated}"'] if stated is not None else []
    return Recognised(
        name=name,
        family=family,
        because=evidence.because,
        architecture=architecture,
        preprocessing=preprocessing,
        notes=tuple(notes),
        assumptions=() if is_named else family.assumptions(architecture),
        pictures=() if pictures is None else (pictures,),
    )


def _family(shapes: Shapes, given: Architecture | None) -> tuple[str, Evidence]:
    is_timms = given is not None and given.name.startswith("timm:")
    for name in key_families:
        evidence = key_families.get(name).recognise(shapes)
        if evidence is not None and (not is_timms or given in (evidence.architecture, *evidence.choices)):
            return name, evidence
    if given is not None:
        return "own_names", Evidence("named by the caller", given)
    raise UserError(
        f"no known network has these {len(shapes)} tensors ({listed(list(shapes), most=10)})",
        do="name it with --arch, for example --arch timm:NAME for one of timm's",
    )


def _architecture(
    name: str, evidence: Evidence, declared: Architecture | None, given: Architecture | None
) -> Architecture:
    """What the keys show, with the arguments that the file's own name for it, or else the caller, adds."""
    found, named = evidence.architecture, given or declared
    if found is None:
        if named is None and evidence.choices:
            raise UserError(
                f"its tensors ({evidence.because}) are those of {' and of '.join(map(str, evidence.choices))}, which"
                " differ in the pictures they want",
                do=f"name the one with --arch {evidence.choices[0]} or --arch {evidence.choices[-1]}",
            )
        if named is None:
            raise UserError(
                f'its keys are those of the family "{name}", and no network of it has {evidence.because}',
                do="if tensors are missing fetch it again, else name the network with --arch",
            )
        return named
    if given is not None and given.name != found.name:
        raise UserError(
            f"its tensors are those of {found} ({evidence.because}), and --arch says {given}", do="leave --arch out"
        )
    return found if named is None else Architecture.checked(found.name, {**found.args, **named.args})
