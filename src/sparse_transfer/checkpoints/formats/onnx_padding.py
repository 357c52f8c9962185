"""Zero padding in a graph: an operation of its own, or a setting of the one behind it, which is the same network.

A padding with zeros belongs to the convolution that reads it, and to a max-pool where nothing is negative, behind a
ReLU: there 0 is never above the largest value of a window. TensorFlow's SAME padding is written in either way.
"""

from dataclasses import dataclass, field

from sparse_transfer.checkpoints.formats.onnx_keys import Key, key_of

Sides = tuple[int, ...]  # zeros above, on the left, below, on the right
NONE: Sides = (0, 0, 0, 0)
AFTER: Sides = (0, 0, 1, 1)  # TensorFlow's SAME for a kernel of 3 at stride 2 on a map of even size


@dataclass
class Paddings:
    """``padded``: key of a padding -> key of what it pads, and its sides.   ``positive``: values that are never < 0."""

    padded: dict[Key, tuple[Key, Sides]] = field(default_factory=dict[Key, tuple[Key, Sides]])
    positive: set[Key] = field(default_factory=set[Key])

    def pad(self, source: Key, sides: Sides) -> Key:
        if not any(sides):
            return source
        key = key_of("pad", sides, source)
        self.padded[key] = (source, sides)
        return key

    def rectify(self, op: str, source: Key) -> Key:
        key = key_of(op, None, source)
        self.positive.add(key)
        return key

    def taken_in(self, source: Key, sides: Sides, *, by_maximum: bool = False) -> tuple[Key, Sides]:
        """What a convolution or max-pool reads before any padding, and all its sides."""
        before, more = self.padded.get(source, (source, NONE))
        if by_maximum and (before not in self.positive or (any(more) and any(sides))):
            return source, sides
        return before, tuple(a + b for a, b in zip(sides, more, strict=True))


def automatic(mode: str, kernel: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...]) -> Sides | None:
    """The sides of ONNX' ``auto_pad``, on maps that the stride divides; None for a mode that is none of its own."""
    if not len(kernel) == len(strides) == len(dilations) == 2:
        return None
    if mode == "VALID":
        return NONE
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        return None
    reach = [(k - 1) * d + 1 - s for k, s, d in zip(kernel, strides, dilations, strict=True)]
    short = [max(0, total) // 2 for total in reach]
    long = [max(0, total) - half for total, half in zip(reach, short, strict=True)]
    return (*short, *long) if mode == "SAME_UPPER" else (*long, *short)
