"""Named, frozen sets of rules for a transfer. A run record stores the resolved values, not the name alone."""

from dataclasses import asdict, dataclass, replace
from typing import Literal

from sparse_transfer.core.canonical import Json
from sparse_transfer.core.registry import Registry
from sparse_transfer.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

# The paper's linear runs: RAW results and `run_dataset_generalize_preextracted_mobilenet.sh` of the published code.
PAPER_SEEDS = (21, 51, 81, 111, 141)


@dataclass(frozen=True)
class Protocol:
    """Every rule of a transfer that the checkpoint and the dataset do not fix.

    solver: the one used unless another is asked for.
    statistics: whose mean and std normalise the pictures: ``imagenet``'s, in full transfer the data set's own, as
        published; or the ``checkpoint``'s own.
    selection: what chooses among candidates: ``none`` (the last epoch is reported, the best one beside it as
        *selected on test*) or ``validation`` (the lowest cross-entropy on a stratified share of the training images,
        or on the data set's own validation images; a linear head is then refitted on all of them; the test images are
        looked at once).
    validation_share: that share.
    exif: whether a picture's EXIF orientation is honoured.
    """

    name: str
    solver: str
    statistics: Literal["imagenet", "checkpoint"]
    selection: Literal["none", "validation"]
    validation_share: float
    exif: bool

    def preprocessing(self, checkpoint: Preprocessing) -> Preprocessing:
        """What is done to a picture: the checkpoint's own facts, less what this protocol overrides.

        With ImageNet's statistics goes Pillow's resizing: the published code knew no other, for RigL's networks too.
        """
        if self.statistics == "imagenet":
            ours = replace(checkpoint, mean=IMAGENET_MEAN, std=IMAGENET_STD, channel_order="rgb")
            is_tf1 = checkpoint.interpolation == "tf1_bicubic"
            return replace(ours, interpolation="bicubic", antialias=True) if is_tf1 else ours
        return checkpoint

    def to_json(self) -> Json:
        return asdict(self)


protocols: Registry[Protocol] = Registry("protocol")

# The published rules: finetune_pre_extracted_features.py of IST-DASLab/sparse-imagenet-transfer. Bicubic for RigL comes
# from the checkpoint's preprocessing; EXIF was never looked at.
protocols.add("cvpr2022", Protocol("cvpr2022", "sgd", "imagenet", "none", 0.0, exif=False))
# What we would defend today: nothing is selected on the test images, and pictures stand upright.
protocols.add("clean", Protocol("clean", "lbfgs", "checkpoint", "validation", 0.2, exif=True))
