"""Pixels against the table of hard pictures, and against pictures whose pixels are written out here."""

import json
import struct
import subprocess
import sys
import warnings
import zlib
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from sparse_transfer.core.errors import UserError
from sparse_transfer.data.decode import MAX_PIXELS, load_picture, open_picture
from sparse_transfer.data.split import Split

# The filter that decode.py sets for the process is not in force here: pytest resets filters for every test.
pytestmark = [pytest.mark.filterwarnings(f"ignore:{text}") for text in ("Corrupt EXIF", "Truncated File", "Image size")]

# Where our pixels are meant to differ from Pillow's own convert("RGB"), which gives all white and all black.
RESCALED = {"gray_16bit.png", "float32.tiff"}


def png(array: np.ndarray, **options: object) -> bytes:
    file = BytesIO()
    Image.fromarray(array).save(file, "PNG", **options)
    return file.getvalue()


def opened(data: bytes, name: str = "x", *, exif: bool = False) -> Image.Image:
    """``data`` as a file of that name in a folder that is empty otherwise, decoded."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        return open_picture(path, exif=exif)


def one_split(root: Path, *paths: str, storage: str = "files") -> Split:
    zeros = np.zeros(len(paths), dtype=np.int64)
    return Split("test", root, paths, zeros, zeros, ("one",), storage)


def png_header_only(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", len(header)) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    end = struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
    return b"\x89PNG\r\n\x1a\n" + chunk + end


def test_every_hard_picture_gives_the_pixels_or_the_refusal_of_the_table(test_data: Path) -> None:
    folder = test_data / "data" / "hard_images"
    table = json.loads((folder / "expectations.json").read_text())["files"]
    assert len(table) == 47
    wrong: list[str] = []
    for name, expected in table.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # a warning of Pillow's would go through 8 threads to the user
                warnings.filterwarnings("ignore", module=r"PIL\.")
                image = open_picture(folder / name)
        except UserError as error:
            if expected.get("load") == "ok" or name not in str(error):
                wrong.append(f"{name}: {error}")
            continue
        mean = np.asarray(image, dtype=float).mean(axis=(0, 1))
        if expected.get("load") != "ok" or image.mode != "RGB" or list(image.size) != expected["size"]:
            wrong.append(f"{name}: {expected.get('load')}, {image.mode}, {image.size}")
        elif name not in RESCALED and np.abs(mean - expected["rgb_mean"]).max() > 0.051:  # the table has one decimal
            wrong.append(f"{name}: mean {mean}")
    assert wrong == []


def test_exif_turns_the_picture_only_when_asked(test_data: Path) -> None:
    folder = test_data / "data" / "hard_images"
    table = json.loads((folder / "expectations.json").read_text())["files"]
    turned = [name for name, row in table.items() if row.get("load") == "ok" and name.startswith("exif_")]
    assert len(turned) == 3
    for name in turned:
        stored = open_picture(folder / name)
        upright = open_picture(folder / name, exif=True)
        assert list(stored.size) == table[name]["size"]
        assert list(upright.size) == table[name]["size_after_exif_transpose"]
        assert np.asarray(stored).shape != np.asarray(upright).shape or not np.array_equal(stored, upright)
    damaged = open_picture(folder / "corrupt_exif.jpg", exif=True)
    assert np.array_equal(damaged, open_picture(folder / "corrupt_exif.jpg"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_eight_orientations_turn_as_pillow_turns_them(orientation: int) -> None:
    from PIL import ImageOps

    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    tag = Image.Exif()
    tag[0x0112] = orientation
    data = png(pixels, exif=tag)
    with Image.open(BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(opened(data, exif=True), expected)
    assert np.array_equal(opened(data), pixels)


def test_sixteen_bit_grey_is_divided_by_257() -> None:
    values = np.array([[0, 128, 129, 257, 32896, 65535]], dtype=np.uint16)
    # 128/257 and 129/257 lie on both sides of a half
    assert np.asarray(opened(png(values)))[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]


def test_float_grey_in_zero_to_one_is_scaled_and_in_zero_to_255_is_not() -> None:
    def tiff(values: list[float]) -> bytes:
        file = BytesIO()
        Image.fromarray(np.array([values], dtype=np.float32)).save(file, "TIFF")
        return file.getvalue()

    assert np.asarray(opened(tiff([0, 0.5, 1])))[0, :, 1].tolist() == [0, 128, 255]
    assert np.asarray(opened(tiff([0, 100.4, 255])))[0, :, 1].tolist() == [0, 100, 255]
    for bad in ([-1.0, 0.5], [0.0, 300.0], [0.0, float("nan")]):
        with pytest.raises(UserError, match=r"/x\.tiff: grey values from"):
            opened(tiff(bad), "x.tiff")


def test_alpha_is_dropped_without_blending() -> None:
    pixels = np.array([[[10, 20, 30, 0], [40, 50, 60, 255]]], dtype=np.uint8)
    assert np.asarray(opened(png(pixels))).tolist() == [[[10, 20, 30], [40, 50, 60]]]


def test_a_palette_is_expanded_and_its_transparency_ignored() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([1, 2, 3, 200, 100, 50])
    image.putpixel((1, 0), 1)
    for transparency in (None, 0, b"\x10\x80"):
        file = BytesIO()
        image.save(file, "PNG", **({} if transparency is None else {"transparency": transparency}))
        assert np.asarray(opened(file.getvalue())).tolist() == [[[1, 2, 3], [200, 100, 50]]]


@pytest.mark.parametrize("side", [10, 9460, 13378, 60000])
def test_the_limit_on_pixels_is_on_the_header_and_holds_where_pillow_only_warns(side: int) -> None:
    data = png_header_only(side, side)
    with pytest.raises(UserError) as caught:
        opened(data, "big.png")
    refused_by_size = side * side > MAX_PIXELS
    assert ("the header claims more than 89,478,485 pixels" in str(caught.value)) is refused_by_size
    assert Image.MAX_IMAGE_PIXELS == MAX_PIXELS  # Pillow's global is read by others and left alone


def test_a_picture_of_just_the_limit_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    data = png(np.zeros((4, 5, 3), dtype=np.uint8))
    monkeypatch.setattr("sparse_transfer.data.decode.MAX_PIXELS", 20)
    assert opened(data).size == (5, 4)
    monkeypatch.setattr("sparse_transfer.data.decode.MAX_PIXELS", 19)
    with pytest.raises(UserError, match="more than 19 pixels"):
        opened(data)


def test_a_cut_file_says_so_and_names_itself(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    file = BytesIO()
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(file, "JPEG")
    path = tmp_path / "a picture – cut.jpg"
    path.write_bytes(file.getvalue()[:2000])
    with pytest.raises(UserError) as caught:
        open_picture(path)
    assert str(caught.value) == (
        f"{path}: the picture is cut short (the file has 2,000 bytes);"
        ' fetch the file again, or run "sparse-transfer data check" to find every bad one'
    )


def test_what_is_no_picture_says_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "page.jpg").write_bytes(b"<!DOCTYPE html><html>")
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "folder.jpg").mkdir()
    cases = {
        "page.jpg": "no picture in a format that is read here; it starts with b'<!DOCTYPE html><'",
        "empty.jpg": "the file is empty",
        "folder.jpg": "the file cannot be read (Is a directory)",
        "absent.jpg": "the file is missing",
    }
    for name, what in cases.items():
        with pytest.raises(UserError) as caught:
            open_picture(tmp_path / name)
        assert caught.value.what == what
        assert str(caught.value).startswith(f"{tmp_path / name}: ")


def test_every_prefix_of_a_picture_is_a_user_error_or_a_picture() -> None:
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"):
        file = BytesIO()
        Image.fromarray(pixels).save(file, kind)
        whole = file.getvalue()
        refused = 0
        for length in range(0, len(whole), 7):
            try:
                opened(whole[:length])
            except UserError:
                refused += 1
        assert refused > 0, kind
        assert opened(whole).size == (8, 8)


def test_no_warning_of_pillows_reaches_the_user(tmp_path: Path) -> None:
    (tmp_path / "big.png").write_bytes(png_header_only(11000, 11000))
    script = (
        "from pathlib import Path; from sparse_transfer.data.decode import open_picture\n"
        "try: open_picture(Path('big.png'))\n"
        "except Exception as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "big.png: the header claims more than 89,478,485 pixels; make the picture smaller\n"
    assert done.stderr == ""


def test_postscript_is_not_handed_to_another_program() -> None:
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    with pytest.raises(UserError, match="no picture in a format that is read here"):
        opened(script, "x.eps")


def test_digits_are_scikit_learns_scaled_to_255() -> None:
    split = one_split(Path("."), "digits#0", "digits#1796", storage="digits")
    images = load_digits().images
    for position, row in enumerate((0, 1796)):
        picture = np.asarray(load_picture(split, position))
        assert picture.shape == (8, 8, 3)
        assert np.array_equal(picture[..., 0], np.round(images[row] * 255 / 16))
        assert (picture == picture[..., :1]).all()


def test_cifar_pictures_come_from_their_container(tmp_path: Path) -> None:
    pytest.importorskip("sparse_transfer.data.readers.cifar")
    import pickle

    rng = np.random.default_rng(2)
    data = rng.integers(0, 256, (3, 3072), dtype=np.uint8)
    content = {b"data": data, b"labels": [0, 1, 2], b"batch_label": b"x", b"filenames": [b"a", b"b", b"c"]}
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps(content, protocol=2))
    split = one_split(tmp_path, "data_batch_1#2", storage="cifar")
    # red plane, green plane, blue plane, each row by row
    assert np.array_equal(load_picture(split, 0), data[2].reshape(3, 32, 32).transpose(1, 2, 0))
