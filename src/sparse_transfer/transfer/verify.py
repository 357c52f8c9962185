"""Whether an imported network does what its authors say: its accuracy on the labelled pictures it was trained for."""

from dataclasses import replace
from pathlib import Path

from sparse_transfer.checkpoints.import_report import Verified
from sparse_transfer.core.errors import UserError
from sparse_transfer.data.readers import imagenet
from sparse_transfer.data.readers.folder import read_test
from sparse_transfer.data.reading import require_folder
from sparse_transfer.data.split import Split
from sparse_transfer.data.transforms import evaluation
from sparse_transfer.models import Network
from sparse_transfer.transfer.compute import DEFAULT, Compute
from sparse_transfer.transfer.evaluate import aligned, measure


def verify(network: Network, pictures: str | Path, *, compute: Compute = DEFAULT) -> Verified:
    """Top-1 of the network's own head, on pictures that go through its own preprocessing, EXIF ignored.

    pictures: a folder of class folders, or ImageNet's own with such a folder ``val`` in it, or with the validation
    pictures as unpacked and the devkit. The class folders sorted
    by their bytes are the head's classes in order, as ImageNet's WordNet numbers are, unless it knows them by name.

    Raises:
        UserError: there is no head, it has another number of classes, or there are no pictures.
    """
    root = Path(pictures)
    head = network.head
    if head is None:
        raise UserError("the network has no head, and there is nothing to verify", do="leave out --verify-on")
    test = labelled_pictures(root)
    if not set(test.classes) <= set(head.classes):
        head = replace(head, classes=())
    head = aligned(head, test, root)
    features = compute.features(network.backbone, test, evaluation(network.backbone.preprocessing))
    accuracy = measure(head, features, test).accuracy
    interval = accuracy.top1_interval
    return Verified(str(root), accuracy.correct, accuracy.total, interval.low, interval.high)


def labelled_pictures(root: Path) -> Split:
    """Every picture below ``root/val/CLASS``, or ``root/CLASS`` where there is no ``val``, sorted by path.

    Or ImageNet's validation pictures in no class folders, with the devkit, as ``imagenet.read`` takes them.
    """
    require_folder(root)
    if (unpacked := imagenet.unpacked(root)) is not None:
        return imagenet.unpacked_test(root, unpacked)[0]
    return read_test(root, "val" if (root / "val").is_dir() else "").test
