"""Bytes to pixels: every picture comes out as RGB, and one that cannot be read names its file."""

import warnings
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from sparse_transfer.core.errors import UserError
from sparse_transfer.data.split import Split

MAX_PIXELS = 89_478_485
"""Largest picture that is read: Pillow's own limit for a warning, a quarter of a GiB at 3 bytes a pixel."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "PPM", "TIFF")
"""What is opened. Pillow knows more, among them EPS, which it hands to another program."""

CHECK = 'fetch the file again, or run "sparse-transfer data check" to find every bad one'

_ORIENTATION = 0x0112  # EXIF tag: how the camera was held
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Pillow warns of what is handled here (large pictures, corrupt EXIF). Set once for the process, because
# catch_warnings is not safe in threads; appended, so that a filter of the user's goes first.
warnings.filterwarnings("ignore", module=r"PIL\.", append=True)


def load_picture(split: Split, index: int, *, exif: bool = False) -> Image.Image:
    """The picture at that position of the split, in mode RGB.

    Raises:
        UserError: the picture cannot be read; ``where`` names its file.
    """
    path = split.paths[index]
    if split.storage == "files":
        return open_picture(split.root / path, exif=exif)
    container, _, row = path.rpartition("#")
    if split.storage == "cifar":
        return Image.fromarray(_cifar(split.root / container)[int(row)])
    if split.storage == "digits":
        return Image.fromarray(_digits()[int(row)]).convert("RGB")
    raise ValueError(f'no storage is called "{split.storage}"')


def open_picture(path: Path, *, exif: bool = False) -> Image.Image:
    """Decode a file by content and not by name: mode RGB, the first frame.

    Alpha is dropped without blending. 16-bit grey is scaled by 1/257, float grey by 255 where it lies in [0, 1].
    ``exif=False`` keeps the pixels as stored, as the paper's code did; ``True`` turns them as the EXIF orientation
    says. A picture of more than ``MAX_PIXELS`` is refused by its header, before anything is allocated.

    Raises:
        UserError: missing, no picture, damaged, cut short or too large; ``where`` is the path.
    """
    data = _read(path)
    if not data:
        raise UserError("the file is empty", where=path, do=CHECK)
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            pixels = image.width * image.height
            if pixels > MAX_PIXELS:
                raise Image.DecompressionBombError(f"{pixels:,} pixels")
            image.load()
            return _rgb(_turned(image) if exif else image)
    except Image.DecompressionBombError:
        raise UserError(
            f"the header claims more than {MAX_PIXELS:,} pixels", where=path, do="make the picture smaller"
        ) from None
    except UnidentifiedImageError:
        raise UserError(
            f"no picture in a format that is read here; it starts with {data[:16]!r}",
            where=path,
            do=f"{', '.join(FORMATS)} are read; {CHECK}",
        ) from None
    except UserError as error:
        raise UserError(error.what, where=path, do=CHECK) from None
    except MemoryError:
        raise
    except Exception as error:
        # Pillow's readers meet damaged bytes with nearly any exception: OSError, SyntaxError, ValueError, struct.error
        cut = "truncated" in str(error).lower()
        what = (
            f"the picture is cut short (the file has {len(data):,} bytes)"
            if cut
            else f"the picture is damaged ({error})"
        )
        raise UserError(what, where=path, do=CHECK) from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError("the file is missing", where=path, do=CHECK) from None
    except (IsADirectoryError, PermissionError) as error:
        raise UserError(
            f"the file cannot be read ({error.strerror})", where=path, do="look at its permissions"
        ) from None


def _turned(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # corrupt EXIF says nothing about the pixels
        return image
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    # A transparent colour or a table of alphas would be dropped below all the same, the latter with a warning.
    image.info.pop("transparency", None)
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bits(values: NDArray[np.integer] | NDArray[np.floating]) -> NDArray[np.uint8]:
    """Grey of 16 bits (65,535 = white) or float (1 = white, or 255 where any value is above 1) -> uint8."""
    low, high = float(values.min()), float(values.max())
    if np.issubdtype(values.dtype, np.integer) and low >= 0 and high <= 65535:
        return np.round(values / 257).astype(np.uint8)
    if np.issubdtype(values.dtype, np.floating) and low >= 0 and high <= 255:
        return np.round(values * (255 if high <= 1 else 1)).astype(np.uint8)
    raise UserError(f"grey values from {low:g} to {high:g}")


_containers = Lock()  # one thread reads a container, the others wait for it


def _cifar(path: Path) -> NDArray[np.uint8]:
    with _containers:
        return _cifar_images(path)


@lru_cache(maxsize=8)  # CIFAR-10 has six files of 30 MB
def _cifar_images(path: Path) -> NDArray[np.uint8]:
    from sparse_transfer.data.readers.cifar import cifar_batch

    return cifar_batch(path)[0]


@lru_cache(maxsize=1)
def _digits() -> NDArray[np.uint8]:
    """[1797, 8, 8]: scikit-learn's digits, values 0..16 scaled to 0..255."""
    from sklearn.datasets import load_digits

    images, _ = load_digits(return_X_y=True)
    return np.round(images.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
