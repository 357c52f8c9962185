"""Intel's Distiller: plain weights, and the masks in the scheduler's state beside them.

``compression_sched["masks_dict"]`` maps the name of a parameter, DataParallel's prefix included, to its mask, or to
None where nothing prunes it. IntelLabs/distiller d859fc8, distiller/scheduler.py.
"""

from collections.abc import Mapping

from sparse_transfer.checkpoints.formats.contract import Decoded, Encoding, encodings
from sparse_transfer.checkpoints.formats.masked import without_weight
from sparse_transfer.checkpoints.formats.source import Source
from sparse_transfer.checkpoints.readers.container import LazyTensor

SCHEDULE, MASKS = "compression_sched", "masks_dict"


def recognise(source: Source) -> str | None:
    masks = _masks(source)
    return f'{len(masks)} masks in "{SCHEDULE}"' if masks else None


def decode(source: Source) -> Decoded:
    masks = _masks(source)
    return Decoded(
        weights=source.tensors,
        keys={key: key for key in source.tensors},
        masks={key: mask for key, mask in masks.items() if key in source.tensors},
        mask_keys={key: f"{SCHEDULE}.{MASKS}.{source.prefix}{key}" for key in masks},
        read_beside=(SCHEDULE,),
        problems=tuple(without_weight(masks, source.tensors)),
    )


def _masks(source: Source) -> dict[str, LazyTensor]:
    schedule = source.beside.get(SCHEDULE)
    masks = schedule.get(MASKS) if isinstance(schedule, Mapping) else None
    found = masks.items() if isinstance(masks, Mapping) else ()
    return {str(key).removeprefix(source.prefix): mask for key, mask in found if isinstance(mask, LazyTensor)}


encodings.add(
    "distiller",
    Encoding(cite="IntelLabs/distiller d859fc8, distiller/scheduler.py", recognise=recognise, decode=decode),
)
