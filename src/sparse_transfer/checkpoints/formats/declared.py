"""What a file says about itself, held against what its tensors say (research: detection, 6.2)."""

from sparse_transfer.checkpoints.formats.contract import Evidence, KeyFamily, key_families
from sparse_transfer.checkpoints.formats.source import Source
from sparse_transfer.core.errors import UserError
from sparse_transfer.models import Architecture, Head

# IST-DASLab/sparse-imagenet-transfer, models/__init__.py: how many classes the head of each dataset has.
CLASSES = {
    "imagenet": 1000,
    "aircraft": 100,
    "birds": 500,
    "caltech101": 101,
    "caltech256": 257,
    "cars": 196,
    "cifar10": 10,
    "cifar100": 100,
    "dtd": 47,
    "food101": 101,
    "flowers": 102,
    "pets": 37,
    "SUN397": 397,
}
WITH_BACKGROUND = 1001  # TF-slim trains ImageNet with a class 0 for what is none of the thousand


def declared_architecture(source: Source, name: str, family: KeyFamily, evidence: Evidence) -> Architecture | None:
    """The architecture that the file's own name for its network means; None where it states none that is known.

    Raises:
        UserError: the name is that of another network than the keys show.
    """
    stated = source.declared
    if stated is None or not any(stated in key_families.get(other).declared for other in key_families):
        return None
    architecture = family.declared.get(stated)
    found = evidence.architecture
    if architecture is None or (found is not None and architecture.name != found.name):
        raise UserError(
            f'the file calls its network "{stated}" and its tensors are those of {found or "no network"} under the'
            f' names of "{name}" ({evidence.because})',
            do=f"give --arch {found or 'NAME'} to go by the tensors",
        )
    return architecture


def trained_on(source: Source) -> tuple[str, ...]:
    """What is assumed of the pictures of a network that was trained on another data set than ImageNet."""
    name = source.dataset
    if name is None or name == "imagenet" or name not in CLASSES:
        return ()
    option = f"--statistics {name.removesuffix('397')}"
    return (
        f'the file says it was trained on "{name}": its pictures are normalised as the network\'s usually are, and'
        f" {option} normalises them by that data set's own mean and std, as the paper's full finetuning did",
    )


def class_warnings(source: Source, head: Head | None) -> tuple[str, ...]:
    """A sentence where the head has not as many classes as the dataset that the file names."""
    classes = None if head is None else len(head.weight)
    if classes == WITH_BACKGROUND:
        return (
            f"the head has {WITH_BACKGROUND:,} classes: most likely ImageNet's 1,000 with a background class before"
            " them, as TensorFlow's networks have it, which moves every label by one",
        )
    expected = CLASSES.get(source.dataset or "")
    if expected is None or classes is None or classes == expected:
        return ()
    return (
        f'the file says its head is for "{source.dataset}", which has {expected} classes, and the head has {classes}',
    )
