"""One small file of every encoding, by the encoding's name: a new encoding needs a line here, or a test fails."""

from collections.abc import Callable, Mapping
from pathlib import Path

from support import foreign_explicit, foreign_implicit, foreign_onnx, foreign_tf
from support.foreign import Sample

SAMPLES: Mapping[str, Callable[[Path], Sample]] = {
    **foreign_explicit.SAMPLES,
    **foreign_implicit.SAMPLES,
    **foreign_tf.SAMPLES,
    **foreign_onnx.SAMPLES,
}
"""Each writes its file into the folder that it is given."""
