"""tar and gzip archives: what Python's own modules write is read, nothing leaves the folder, the folder always goes."""

import gzip
import hashlib
import io
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from sparse_transfer.checkpoints.importing import import_checkpoint
from sparse_transfer.checkpoints.readers.archives import unpacked
from sparse_transfer.checkpoints.readers.opening import open_container
from sparse_transfer.checkpoints.readers.tar import members
from sparse_transfer.core.errors import Interrupted, UserError
from support.archives import END, member, pax, tar_of
from support.foreign_tf import bundle, tfjs
from support.hostile import live_pickles, zip_of
from support.samples import SAMPLES
from support.trees import read_all, same

TREE = {"b": torch.arange(4), "w": torch.arange(6.0).reshape(2, 3)}
MAIN = {
    "zip": "x.pth",
    "legacy": "x.pth",
    "safetensors": "x.safetensors",
    "tf-bundle": "model.ckpt-7",
    "tfjs": "model.json",
}
FORMS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where archives are unpacked; empty again after every test, however it ended."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


@pytest.fixture(autouse=True)
def _nothing_is_left(temporary: Path) -> Iterator[None]:
    yield
    assert list(temporary.iterdir()) == []


def files_of(folder: Path, kind: str) -> dict[str, bytes]:
    """A checkpoint of that kind as file names and bytes."""
    place = folder / "made"
    place.mkdir()
    if kind in ("zip", "legacy"):
        torch.save(TREE, place / "x.pth", _use_new_zipfile_serialization=kind == "zip")
    elif kind == "safetensors":
        (place / "x.safetensors").write_bytes(save(TREE))
    elif kind == "tf-bundle":
        bundle(place / "model.ckpt-7", TREE, shards=2)
    else:
        tfjs(place, {"b": TREE["b"].int(), "w": TREE["w"]})
    return {path.name: path.read_bytes() for path in sorted(place.iterdir())}


def opened(path: Path) -> object:
    with unpacked(path) as file:
        return read_all(open_container(file).root)


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        opened(path)
    assert str(caught.value).isprintable()
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value).removeprefix(f"{path}: ")


def written(folder: Path, data: bytes, name: str = "x.tar") -> Path:
    (folder / name).write_bytes(data)
    return folder / name


# --- what is right ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize("kind", MAIN)
def test_every_container_is_read_out_of_an_archive(kind: str, is_packed: bool, form: str, tmp_path: Path) -> None:
    made = files_of(tmp_path, kind)
    beside = {"README.md": b"# A network\n", "config.json": b"{}", "checkpoint.txt": b"", "._model.ckpt.index": b"\0\5"}
    data = tar_of({f"./s80/{name}": data for name, data in (beside | made).items()}, form=FORMS[form])
    path = written(tmp_path, gzip.compress(data) if is_packed else data)
    assert same(opened(path), opened(tmp_path / "made" / MAIN[kind]))


def test_system_tar_is_read_with_its_folders(tmp_path: Path) -> None:
    """Oracle: the machine's own tar, of a folder with a folder in it."""
    (tmp_path / "run/logs").mkdir(parents=True)
    (tmp_path / "run/logs/a.txt").write_text("loss")
    bundle(tmp_path / "run/model.ckpt-7", TREE)
    subprocess.run(["tar", "czf", "x.tgz", "./run"], cwd=tmp_path, check=True)
    assert same(opened(tmp_path / "x.tgz"), TREE)


@pytest.mark.parametrize("form", ["gnu", "pax"])
@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.lists(st.text(st.characters(categories=("L", "N", "Zs")), min_size=1, max_size=60), min_size=1, max_size=4)
        .map(lambda parts: "/".join(part.strip() or "x" for part in parts))
        .filter(lambda name: name.isprintable() and all(len(part.encode()) < 256 for part in name.split("/"))),
        st.binary(max_size=1500),
        max_size=5,
    )
)
def test_any_files_come_back(form: str, files: dict[str, bytes]) -> None:
    """Oracle: Python's tarfile. Names that are a folder of another are left to the refusals."""
    folded = [name.casefold() for name in files]
    if len(set(folded)) < len(folded) or any(a != b and b.startswith(f"{a}/") for a in folded for b in folded):
        return
    found = {one.name: b"".join(one.blocks) for one in members(io.BytesIO(tar_of(files, form=FORMS[form])))}
    assert found == files


def test_a_lone_file_in_gzip_is_that_file(tmp_path: Path) -> None:
    torch.save(TREE, tmp_path / "x.pth")
    path = written(tmp_path, gzip.compress((tmp_path / "x.pth").read_bytes()), "model.pth.gz")
    with unpacked(path) as file:
        assert file.name == "model.pth"
        assert same(read_all(open_container(file).root), TREE)


def test_a_file_that_is_no_archive_is_left_where_it_is(tmp_path: Path) -> None:
    path = written(tmp_path, b"abc")
    for place in (path, tmp_path, tmp_path / "gone"):
        with unpacked(place) as file:
            assert file == place


def test_the_list_of_a_folder_names_the_latest_of_several(tmp_path: Path, temporary: Path) -> None:
    (tmp_path / "made").mkdir()
    for step in (5, 7):
        bundle(tmp_path / "made" / f"model.ckpt-{step}", {"step": torch.tensor(step)})
    files = {f"run/{path.name}": path.read_bytes() for path in (tmp_path / "made").iterdir()}
    path = written(tmp_path, tar_of(files))
    assert refusal(path) == (
        'the archive holds 2 checkpoints ("run/model.ckpt-5.index", "run/model.ckpt-7.index");'
        " unpack it and name one of them"
    )
    for named, found in (("/home/a/model.ckpt-7", 7), ("model.ckpt-5", 5)):
        listed = tar_of({**files, "run/checkpoint": f'model_checkpoint_path: "{named}"\n'.encode()})
        assert opened(written(tmp_path, listed)) == {"step": torch.tensor(found)}
    listed = tar_of({**files, "run/checkpoint": b'model_checkpoint_path: "gone"\n'})
    assert refusal(written(tmp_path, listed)).startswith("the archive holds 2 checkpoints")
    assert list(temporary.iterdir()) == []


def test_an_archive_of_99_percent_zeros_is_no_bomb(tmp_path: Path) -> None:
    """A mask, its weights and their momentum: the most that an honest archive unfolds."""
    generator = torch.Generator().manual_seed(0)
    kept = torch.rand(500_000, generator=generator) < 0.01
    state = {name: torch.where(kept, torch.randn(len(kept), generator=generator), 0.0) for name in ("w", "momentum")}
    state["mask"] = kept.float()
    data = gzip.compress(tar_of({"x.safetensors": save(state)}))
    assert 40 < 6_000_000 / len(data) < 100
    assert same(opened(written(tmp_path, data)), dict(sorted(state.items())))


def test_an_import_names_the_archive_and_its_digest(tmp_path: Path) -> None:
    sample = SAMPLES["tf_mask"](tmp_path)
    files = {
        f"s80/{p.name}": p.read_bytes() for p in sample.path.parent.iterdir() if p.stem.startswith(sample.path.stem)
    }
    path = written(tmp_path, gzip.compress(tar_of(files)), "s80.tar.gz")
    plain, imported = import_checkpoint(sample.path, **sample.said), import_checkpoint(path, **sample.said)  # type: ignore[arg-type]
    assert imported.network.digest() == plain.network.digest()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert (imported.origin.file, imported.origin.sha256) == (f"s80.tar.gz/{sample.path.name}", digest)
    assert (imported.report.file, imported.report.sha256) == (f"s80.tar.gz/{sample.path.name}", digest)
    with pytest.raises(UserError) as caught:
        import_checkpoint(path, sparsity=0.01)
    assert str(caught.value).startswith(f"{path}/s80/{sample.path.name}: ")


@pytest.mark.parametrize("ending", [ValueError, Interrupted, KeyboardInterrupt])
def test_the_folder_goes_whatever_ends_the_work(ending: type[BaseException], tmp_path: Path, temporary: Path) -> None:
    path = written(tmp_path, tar_of({"x.safetensors": save(TREE)}))

    def stopped() -> None:
        with unpacked(path) as file:
            assert list(temporary.iterdir()) == [file.parent]
            assert file.is_file()
            assert file.parent.stat().st_mode & 0o077 == 0  # nobody else's to change between unpacking and reading
            raise ending

    with pytest.raises(ending):
        stopped()
    assert list(temporary.iterdir()) == []


# --- what is refused ----------------------------------------------------------------------------------------------

OK = member("x", b"data")
OUTWARDS = "would not lie in one folder with the others; unpack it where you trust it and name the file inside"


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../x", "a/../../x", "a/..", "a//b", "a/./b", "..", "a\\b", "C:x", "a\nb", "a\x1b[2Jb", "n" * 256,
     "/".join(["abcdefghi"] * 101)],
)  # fmt: skip
def test_a_path_that_could_lead_outwards_is_refused(name: str, tmp_path: Path) -> None:
    for data in (pax(path=name) + OK, member("L", name.encode() + b"\0", kind=b"L", magic=b"ustar  \0") + OK):
        assert refusal(written(tmp_path, data + END)).endswith(OUTWARDS)
    if len(name) < 100:
        assert refusal(written(tmp_path, member(name, b"a") + END)).endswith(OUTWARDS)
        assert refusal(written(tmp_path, member(name, kind=b"5") + OK + END)).endswith(OUTWARDS)
    assert sorted(os.listdir(tmp_path)) == ["temporary", "x.tar"]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (member("x", kind=b"2", link=b"/etc/passwd"), '"x" is a link; unpack it where you trust it'),
        (member("x", kind=b"1", link=b"../x"), '"x" is a link'),
        (member("x", kind=b"3"), '"x" is a device'),
        (member("x", kind=b"4"), '"x" is a device'),
        (member("x", kind=b"6"), '"x" is a pipe'),
        (member("x", kind=b"S"), '"x" is stored in a way that is not read'),
        (member("x", kind=b"V"), '"x" is stored in a way that is not read'),
        (pax(GNU_sparse_major="1") + OK, '"x" is stored in a way that is not read'),
        (OK + OK, 'two members of the archive are called "x"'),
        (OK + member("X", b"data"), 'two members of the archive are called "X"'),
        (OK + member("x/y", b"data"), 'two members of the archive are called "x"'),
        (member("x/y", b"data") + OK, 'two members of the archive are called "x"'),
        (OK + member("x/", kind=b"5"), 'two members of the archive are called "x"'),
        (member("x", b"data", kind=b"5"), 'the archive\'s folder "x" has 4 bytes'),
        (member(b"\xff\xfe", b"data"), "a name in the archive is not UTF-8"),
        (pax(path="a") + pax(path="b") + OK, "the archive describes a member in two ways"),
        (member("g", b"9 path=a\n", kind=b"g") + OK, "the archive describes a member in two ways"),
        (pax(size="-5") + OK, 'gives its member "x" a size of "-5"'),
        (pax(size="9" * 30) + OK, 'gives its member "x" a size of'),
        (pax(size="٤") + OK, 'gives its member "x" a size of'),
        (member("P", b"99 path=a\n", kind=b"x") + OK, "a pax header of the archive is damaged"),
        (member("P", b"5 path=a\n", kind=b"x") + OK, "a pax header of the archive is damaged"),
        (member("P", b"path", kind=b"x") + OK, "a pax header of the archive is damaged"),
        (pax(path="a"), "the archive ends after the name of a member"),
        (member("x", b"data", size=b"77777777777\0"), "the archive is cut short"),
        (member("x", b"data", size=b"\x80" + b"\xff" * 11), 'gives its member "x" a size of "3094'),
        (member("x", b"data", size=b"\xff" * 12), "a header of the archive is damaged"),
        (member("x", b"data", size=b"-0000000004\0"), "a header of the archive is damaged"),
        (member("P", b"", kind=b"x", size=b"00077777777\0"), "the archive has a name of 16,777,215 bytes"),
        (member("x", b"data", magic=b"ustar!00"), "a member of the archive is of the tar before POSIX"),
        (OK[:148] + b"0000000\0" + OK[156:], "a header of the archive is not what was written (checksum)"),
        (member("a/", kind=b"5") * 20_001, "the archive has more than 20,000 headers"),
        (member("g", b"10 c=abcd\n", kind=b"g") * 20_001, "the archive has more than 20,000 headers"),
    ],
)
def test_an_archive_that_means_harm_is_one_sentence(data: bytes, sentence: str, tmp_path: Path) -> None:
    for name, whole in (("x.tar", data + END), ("x.tar.gz", gzip.compress(data + END, 1))):
        assert sentence in refusal(written(tmp_path, whole, name))


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (OK, "the archive is cut short"),
        (OK[:700], "the archive is cut short"),
        (OK + END[:512], "the archive is cut short"),
        (OK + END[:512] + OK, "the archive goes on after its end"),
        (OK + END + OK, "the archive goes on after its end"),
    ],
)
def test_an_archive_ends_once_and_where_it_says(data: bytes, sentence: str, tmp_path: Path) -> None:
    assert refusal(written(tmp_path, data)).startswith(sentence)


def test_a_bomb_is_one_sentence(tmp_path: Path) -> None:
    zeros = b"\0" * (1 << 20)
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb") as file:
        file.write(member("x", size=b"%011o\0" % (400 << 20)))
        for _ in range(400):
            file.write(zeros)
    path = written(tmp_path, buffer.getvalue())
    assert path.stat().st_size < 500_000
    assert refusal(path) == (
        "the archive would unfold to more than 268,435,456 bytes; get the file from its authors as plain tensors"
    )
    written(tmp_path, gzip.compress(b"\0" * (300 << 20)), "lone.gz")
    assert refusal(tmp_path / "lone.gz").startswith("the archive would unfold to more than 2")


@pytest.mark.parametrize("cut", [1, 5, 11, 60, -1, -4, -9])
def test_a_gzip_file_that_is_cut_or_changed_is_refused(cut: int, tmp_path: Path) -> None:
    whole = gzip.compress(tar_of({"x.safetensors": save(TREE)}), mtime=0)
    if cut != 1:  # one byte is no gzip file
        assert (
            refusal(written(tmp_path, whole[:cut])) == "the archive is damaged or cut short (gzip); download it again"
        )
    changed = bytearray(whole)
    changed[-5] ^= 1  # of the CRC
    assert refusal(written(tmp_path, bytes(changed))).startswith("the archive is damaged or cut short (gzip)")
    assert refusal(written(tmp_path, whole + b"more")).startswith("the archive is damaged or cut short (gzip)")


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"._x.pth": b"\0\5\x16\7"}, "the archive holds no checkpoint; download it again"),
        (
            {"a.txt": b"a", "b.csv": b"1,2", "c/d": b"", "e": b"x"},
            'the archive holds no checkpoint among its 4 files ("a.txt", "b.csv", "c/d" and 1 more); download it again',
        ),
        (
            {"a.safetensors": save(TREE), "b.safetensors": save(TREE)},
            'the archive holds 2 checkpoints ("a.safetensors", "b.safetensors"); unpack it and name one of them',
        ),
        (
            {"sys_info": b"a", "pickle": b"\x80\x02}.", "storages": b"b", "tensors": b"c"},
            "this is a file of torch 0.1.9 or older, of which no published checkpoint is known; load it in torch where"
            " you trust it and save its tensors again",
        ),
    ],
)
def test_an_archive_without_the_one_checkpoint_says_so(files: dict[str, bytes], sentence: str, tmp_path: Path) -> None:
    assert refusal(written(tmp_path, tar_of(files))) == sentence


def inside(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        opened(path)
    return str(caught.value).removeprefix(f"{path}/")


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"\x89HDF\r\n\x1a\n", "HDF5 files (Keras) are not read"),
        (gzip.compress(b"a"), "an archive in an archive is not read; unpack it and name the file inside"),
        (tar_of({"y": b"a"}), "an archive in an archive is not read"),
        (b"", "the file is empty"),
        (zip_of(b"cposix\nsystem\n(Vid\ntR."), 'the pickle asks for "posix.system", which is not data'),
    ],
    ids=["keras", "gzip", "tar", "empty", "hostile"],
)
def test_the_one_file_of_an_archive_is_named_with_it(data: bytes, sentence: str, tmp_path: Path) -> None:
    assert inside(written(tmp_path, tar_of({"a/only": data}))).startswith(f"a/only: {sentence}")
    assert inside(written(tmp_path, gzip.compress(tar_of({"a/only": data})))).startswith(f"a/only: {sentence}")
    if data and not data.startswith(b"y"):
        assert inside(written(tmp_path, gzip.compress(data), "only.gz")).startswith(f"only: {sentence}")


def test_a_bundle_without_its_data_names_what_is_missing(tmp_path: Path) -> None:
    made = files_of(tmp_path, "tf-bundle")
    made.pop("model.ckpt-7.data-00001-of-00002")
    path = written(tmp_path, tar_of(made))
    assert inside(path).startswith('model.ckpt-7.index: "model.ckpt-7.data-00001-of-00002" is missing')


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, temporary: Path) -> None:
    path = written(tmp_path, tar_of({"a/x.safetensors": save(TREE)}))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", full)
        said = refusal(path)
    assert said == (
        f"it cannot be unpacked in {temporary} (no space left on device); make room there, or set TMPDIR elsewhere"
    )


def test_no_pickle_of_an_archive_runs(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    for content in live_pickles(marker).values():
        inside(written(tmp_path, gzip.compress(tar_of({"x.pth": zip_of(content)}))))
    assert not marker.exists()
