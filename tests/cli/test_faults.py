"""Whatever goes wrong: one clear sentence, the right exit status, and everything that was finished is whole."""

import errno
import json
import os
import re
import signal
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image

from sparse_transfer.checkpoints.file import load, save
from sparse_transfer.cli import main as program
from sparse_transfer.models import Head, Network
from support.hostile import dead_pickles, legacy_of, live_pickles, zip_of, zip_tricks
from support.pictures import CLASSES, class_folders
from support.processes import (
    QUICKLY,
    STOPPED,
    TRAIN_CHUNKS,
    Outcome,
    ended,
    start,
    train_journal,
    transfer,
    wait_for,
)
from support.tiny import checkpoint_file, sparse_backbone


@dataclass(frozen=True)
class Said:
    status: int
    out: str
    err: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Said]:
    monkeypatch.setattr("sparse_transfer.core.progress._quiet", False)  # --quiet is for the whole process

    def in_process(*words: object) -> Said:
        capsys.readouterr()
        status = program.run([str(word) for word in words])
        return Said(status, *capsys.readouterr())

    return in_process


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("small") / "pictures", train=4, test=2)


@pytest.fixture(scope="module")
def unbroken(network: Path, many: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    place = tmp_path_factory.mktemp("unbroken")
    assert program.run(transfer(network, many, place)) == 0
    return Outcome.of(place)


# --- stopped, by real signals -------------------------------------------------------------------------------------


def test_a_killed_transfer_goes_on_at_its_chunk_and_ends_as_if_never_killed(
    network: Path, many: Path, unbroken: Outcome, tmp_path: Path
) -> None:
    words = transfer(network, many, tmp_path)
    process = start(*words)
    before = wait_for(lambda: train_journal(tmp_path / "cache"), process)
    process.kill()
    assert ended(process).status == -signal.SIGKILL
    assert not list(tmp_path.rglob("result.json"))
    assert program.run(words) == 0
    assert Outcome.of(tmp_path) == unbroken
    journals = [path.read_bytes() for path in tmp_path.glob("cache/features/*/chunks.jsonl")]
    assert [journal.startswith(before.rpartition(b"\n")[0]) for journal in journals].count(True) == 1
    assert sorted(len(journal.split()) for journal in journals) == [1, TRAIN_CHUNKS], "no chunk was made twice"
    assert not list(tmp_path.glob("cache/features/*.partial"))


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_transfer_says_so_and_leaves_finished_things_whole(
    stop: signal.Signals, network: Path, many: Path, pictures: Path, unbroken: Outcome, tmp_path: Path
) -> None:
    earlier = ["linear", str(network), f"folder:{pictures}", *QUICKLY, "--runs", f"{tmp_path}/runs"]
    assert program.run(earlier) == 0
    (finished,) = tmp_path.rglob("result.json")
    content = finished.read_bytes()
    words = transfer(network, many, tmp_path)
    process = start(*words)
    wait_for(lambda: train_journal(tmp_path / "cache"), process)
    process.send_signal(stop)
    over = ended(process, timeout_s=20)
    assert (over.status, over.out, over.err.lstrip("\n")) == (130, "", STOPPED)
    assert list(tmp_path.rglob("result.json")) == [finished]
    assert finished.read_bytes() == content
    assert not (tmp_path / "out.safetensors").exists()
    assert program.run(words) == 0
    assert load(tmp_path / "out.safetensors").digest == unbroken.digest


def test_of_two_processes_on_one_run_the_second_waits_or_is_refused(
    run: Callable[..., Said], network: Path, many: Path, tmp_path: Path
) -> None:
    words = [*transfer(network, many, tmp_path), "--json"]
    first = start(*words)
    wait_for(lambda: train_journal(tmp_path / "cache"), first)
    refused = run(*words, "--no-wait")
    assert (refused.status, refused.out) == (2, "")
    folder = r"error: .*/runs/linear/folder-crowd/tiny/seed21-\w{12}"
    assert re.fullmatch(
        rf"{folder}: process {first.pid} on \S+ works on this run; wait for it or stop it\n", refused.err
    )
    waited = run(*words)
    assert waited.status == 0
    assert f"process {first.pid} on" in waited.err
    assert waited.err.endswith("works on this run; waiting for it\n")
    over = ended(first)
    assert (over.status, over.err) == (0, ""), "without a terminal there is no bar"
    assert json.loads(over.out) == json.loads(waited.out)
    assert len(list(tmp_path.rglob("result.json"))) == 1


def test_a_process_of_its_own_prints_one_json_value_and_is_quiet(network: Path, pictures: Path, tmp_path: Path) -> None:
    words = ["linear", network, f"folder:{pictures}", *QUICKLY, "--runs", tmp_path, "--json", "--quiet"]
    over = ended(start(*words))
    assert (over.status, over.err) == (0, "")
    (result,) = json.loads(over.out)
    assert result["identity"]["seed"] == 21
    assert over.out.count("\n") == 1


def test_a_name_that_the_terminal_cannot_show_stops_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # this process keeps its own
    network, picture = tmp_path / "net.safetensors", tmp_path / os.fsdecode(b"caf\xe9.png")
    save(Network(sparse_backbone(), Head(torch.zeros(3, 64), torch.zeros(3), CLASSES)), network)
    with picture.open("wb") as file:
        Image.new("RGB", (8, 8)).save(file, "png")
    for form in ([], ["--csv"], ["--json"]):
        with pytest.raises(SystemExit) as end:
            program.main(["predict", str(network), str(picture), "--threads", "1", *form])
        assert end.value.code == 0
        assert "caf\\udce9.png" in capsys.readouterr().out


def test_a_class_whose_name_is_no_utf_8_goes_all_the_way(
    run: Callable[..., Said], network: Path, tmp_path: Path
) -> None:
    """Bytes of a folder's name that are no text come back from network and runs as they were."""
    latin = os.fsdecode(b"caf\xe9")
    pictures = class_folders(tmp_path / "pictures", train=4, test=2)
    for part in ("train", "test"):
        (pictures / part / CLASSES[0]).rename(pictures / part / latin)
    data, out = f"folder:{pictures}", ["--runs", tmp_path / "runs", "--output"]
    head, full = tmp_path / "head.safetensors", tmp_path / "full.safetensors"
    assert run("linear", network, data, *QUICKLY, *out, head).status == 0
    assert run("finetune", network, data, "--seed", 1, "--epochs", 1, "--threads", 1, *out, full).status == 0
    for path in (head, full):
        learnt = load(path).head
        assert learnt is not None
        assert learnt.classes == tuple(sorted((*CLASSES[1:], latin), key=os.fsencode))
    assert run("evaluate", head, data, "--threads", 1).status == 0


# --- a full disk --------------------------------------------------------------------------------------------------


def test_a_full_disk_under_the_cache_is_said_and_leaves_nothing_false(
    run: Callable[..., Said], network: Path, pictures: Path, tmp_path: Path
) -> None:
    words = ["linear", network, f"folder:{pictures}", *QUICKLY, "--runs", tmp_path / "runs", "--cache", tmp_path / "c"]

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        said = run(*words)
    assert (said.status, said.out) == (1, "")
    assert said.err == (
        f"error: {tmp_path / 'c'}: the disk is full, and these features need 1,536 bytes; what is done is kept, so "
        'free some space ("sparse-transfer cache prune --max-size SIZE") or name another place with --cache\n'
    )
    assert not list(tmp_path.rglob("result.json"))
    assert run(*words).status == 0


# --- options ------------------------------------------------------------------------------------------------------

WRONG = "Invalid value for '--{}': {}; see sparse-transfer linear --help"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--protocol", "claen"], 'no protocol is called "claen"; did you mean "clean"?'),
        (["--solver", "sdg"], 'no solver is called "sdg"; did you mean "sgd"?'),
        (
            ["--seeds", "0"],
            WRONG.format("seeds", "0 seeds, and the paper has 5: name your own, as in 1,2,3,4,5,6, or --seed 0"),
        ),
        *(
            (
                ["--seeds", text],
                WRONG.format("seeds", f'"{text}" is no list of seeds: write 5 for the first five, or 21,51,81'),
            )
            for text in ("x", "", "1,,2")
        ),
        *(
            (["--seeds", text], WRONG.format("seeds", f'"{text}" repeats a seed or has one outside 0 to 2^63 - 1'))
            for text in ("3,3", f"{2**63},")
        ),
        (["--seed", "-1"], WRONG.format("seed", "-1 is not in the range 0<=x<=9223372036854775807")),
        (["--seed", "7", "--seeds", "2"], "--seed and --seeds were given; choose one"),
        (["--shots", "0"], "0 shots; take 1 or more"),
        (["--shots", "2", "--fraction", "0.5"], "shots and a fraction are two ways to say one thing; give one of them"),
        (["--fraction", "nan"], "a fraction of nan; it lies above 0 and is at most 1"),
        (["--device", "gpu"], '--device: "gpu" is no device; it is cpu, cuda or auto'),
        (["--solver", "sgd", "--lr", "nan"], "--lr: a learning rate of nan; give finite numbers above 0"),
        (["--epochs", "0"], WRONG.format("epochs", "0 is not in the range x>=1")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_option_is_one_sentence(
    run: Callable[..., Said], words: list[str], sentence: str, network: Path, pictures: Path, tmp_path: Path
) -> None:
    said = run("linear", network, f"folder:{pictures}", "--runs", tmp_path / "runs", *words)
    assert (said.status, said.out, said.err) == (2, "", f"error: {sentence}\n")
    assert not list(tmp_path.rglob("result.json"))


def test_no_words_at_all_show_the_help(run: Callable[..., Said]) -> None:
    said = run()
    assert said.status == 2
    assert "sparse-transfer linear" in said.out + said.err


def test_an_output_that_cannot_be_written_is_refused_before_the_work(
    run: Callable[..., Said], network: Path, pictures: Path, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    refused = {
        tmp_path / "out.pth": '".pth" is no checkpoint of ours; end its name with .safetensors',
        tmp_path: f'"{tmp_path.suffix}" is no checkpoint of ours; end its name with .safetensors',
        file / "out.safetensors": "no file can be written there (File exists); name another place with -o",
        network: "this is the file that is read, and it would be lost; name another one",
    }
    if Path("/proc").is_dir():
        where = Path("/proc/out.safetensors")
        refused[where] = "no file can be written there (No such file or directory); name another place with -o"
    folder = tmp_path / "folder.safetensors"
    folder.mkdir()
    refused[folder] = f"this is a folder; name a file in it, as in {folder / 'network.safetensors'}"
    for output, sentence in refused.items():
        for words in (
            ["linear", network, f"folder:{pictures}", *QUICKLY, "--runs", tmp_path / "runs"],
            ["import", network],
        ):
            said = run(*words, "-o", output)
            assert (said.status, said.out, said.err) == (2, "", f"error: {output}: {sentence}\n")
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "cache").exists()
    assert file.read_text() == "mine"


def test_the_folders_of_an_output_are_made_and_finished_runs_are_shown_again(
    run: Callable[..., Said], network: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["linear", network, f"folder:{pictures}", *QUICKLY, "--runs", tmp_path / "runs"]
    output = tmp_path / "new" / "deep" / "out.safetensors"
    first = run(*words, "-o", output)
    assert (first.status, first.err) == (0, "")
    assert load(output).head is not None
    monkeypatch.setattr("sparse_transfer.transfer.linear.fit_seeds", None)  # a call would raise
    again = run(*words)
    assert (again.status, again.err) == (0, "")
    assert again.out == first.out.replace(f", network: {output}", "")

    csv = run("results", tmp_path / "runs", "--csv").out.splitlines()
    assert csv[0].startswith("dset,model,sparsity,seed,val_acc,")
    assert csv[1].startswith("folder-pictures,magnitude,0.8,seed_21,")
    assert len(csv) == 2
    assert len(json.loads(run("results", tmp_path / "runs", "--json").out)) == 1

    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[" in run("results", tmp_path / "runs").out
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in run("results", tmp_path / "runs").out


def test_folders_that_are_files_are_named(
    run: Callable[..., Said], network: Path, pictures: Path, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    words = ["linear", network, f"folder:{pictures}", *QUICKLY]
    said = run(*words, "--runs", file)
    assert (said.status, said.out) == (2, "")
    assert said.err == f"error: {file}: no run can be kept here (Not a directory); name another folder with --runs\n"
    said = run(*words, "--runs", tmp_path / "runs", "--cache", file)
    assert (said.status, said.out) == (2, "")
    assert said.err.startswith(f"error: {file}: the cache cannot be written (")
    assert said.err.endswith("; name another place with --cache\n")
    assert file.read_text() == "mine"


# --- data sets ----------------------------------------------------------------------------------------------------


def test_a_root_one_folder_off_is_said_with_the_right_one(
    run: Callable[..., Said], network: Path, pictures: Path, tmp_path: Path
) -> None:
    empty = class_folders(tmp_path / "empty", train=2, test=1)
    (empty / "train" / "unicorns").mkdir()
    (empty / "test" / "unicorns").mkdir()
    differ = class_folders(tmp_path / "differ", train=2, test=1)
    (differ / "test" / "red dots").rename(differ / "test" / "red dogs")
    misspelt = pictures.with_name("pictres")
    for word, sentence in {
        f"folder:{pictures.parent}": f"{pictures.parent}: this is no dataset, one folder below is; give {pictures}",
        f"folder:{pictures / 'train'}": f'{pictures / "train"}: this is the "train" part of a dataset; give {pictures}',
        f"folder:{pictures / 'train' / 'red dots'}": f"{pictures / 'train' / 'red dots'}: 4 pictures directly in it, "
        f"without class folders; give the folder above, {pictures / 'train'}, or sort them into one folder a class",
        f"folder:{misspelt}": f'{misspelt}: there is no such folder; did you mean "{pictures}"?',
        f"folder:{network}": f"{network}: this is a file, not a folder; unpack it, and give the folder",
        str(pictures): f'no dataset is called "{pictures}"; for the pictures in that folder write folder:{pictures}',
        "pet": 'no dataset is called "pet"; did you mean "pets"?',
        "pets": "pets: no folder is named; write pets:PATH, or set SPARSE_TRANSFER_DATA",
        "folder:": '"folder:": the folder after the colon is missing; write folder:PATH',
        f"folder:{empty}": f'{empty / "train"}: no pictures in 1 of 4 class folders ("unicorns"); fill them or take '
        "them away, from the other parts too",
        f"folder:{differ}": f'{differ}: train and test have different class folders: 1 in train only ("red dots"), '
        '1 in test only ("red dogs"); make the class folders equal',
    }.items():
        said = run("linear", network, word, *QUICKLY, "--runs", tmp_path / "runs")
        assert (said.status, said.out, said.err) == (2, "", f"error: {sentence}\n")
    assert not (tmp_path / "runs").exists()


def enormous_png() -> bytes:
    """A PNG whose header claims 60,000 x 60,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def test_an_enormous_picture_is_refused_by_its_header(run: Callable[..., Said], network: Path, tmp_path: Path) -> None:
    root = class_folders(tmp_path / "pictures", train=2, test=1)
    bad = root / "train" / "red dots" / "huge.png"
    bad.write_bytes(enormous_png())
    said = run("linear", network, f"folder:{root}", *QUICKLY, "--runs", tmp_path / "runs")
    assert (said.status, said.out) == (2, "")
    assert said.err == f"error: {bad}: the header claims more than 89,478,485 pixels; make the picture smaller\n"
    bad.unlink()
    assert run("linear", network, f"folder:{root}", *QUICKLY, "--runs", tmp_path / "runs").status == 0


def hard_pictures(test_data: Path) -> tuple[list[Path], list[Path]]:
    """Good and bad pictures with a picture's extension, by the table that Pillow's own answers made."""
    folder = test_data / "data" / "hard_images"
    files = json.loads((folder / "expectations.json").read_text())["files"]
    good = [folder / name for name, row in files.items() if row.get("load") == "ok"]
    bad = [folder / name for name, row in files.items() if row.get("load") != "ok"]
    return good, bad


def test_every_hard_picture_is_used_or_named(
    run: Callable[..., Said], test_data: Path, network: Path, pictures: Path, tmp_path: Path
) -> None:
    good, bad = hard_pictures(test_data)
    assert (len(good), len(bad)) == (36, 11)
    output = tmp_path / "out.safetensors"
    words = [*QUICKLY, "--runs", tmp_path / "runs"]
    assert run("linear", network, f"folder:{pictures}", *words, "-o", output).status == 0

    said = run("predict", output, *good, *bad, "--json", "--threads", "1")
    rows = {Path(row["path"]): row for row in json.loads(said.out)}
    assert said.status == 0
    assert list(rows) == [*good, *bad]
    assert [path.name for path in good if rows[path]["error"]] == []
    assert [path.name for path in bad if not rows[path]["error"]] == []
    assert said.err.endswith(f"warning: {len(bad)} pictures of {len(rows)} could not be read and passed over\n")
    none = run("predict", output, *bad, "--threads", "1")
    assert (none.status, none.out) == (2, "")
    assert none.err.endswith(f"error: none of {len(bad)} pictures could be read; what each has is said above\n")

    root = class_folders(tmp_path / "with a bad one", train=2, test=1)
    for path in bad:
        if path.name.startswith("."):
            continue  # a hidden file is no picture of a dataset
        placed = root / "train" / "green checks" / path.name
        placed.write_bytes(path.read_bytes())
        said = run("linear", network, f"folder:{root}", *words)
        assert (said.status, said.out) == (2, "")
        assert said.err.startswith(f"error: {placed}: ")
        assert said.err.count("\n") == 1
        placed.unlink()


# --- checkpoints --------------------------------------------------------------------------------------------------


def test_a_damaged_checkpoint_is_refused_by_every_verb(
    run: Callable[..., Said], network: Path, pictures: Path, tmp_path: Path
) -> None:
    whole = network.read_bytes()
    damaged = {
        "empty": b"",
        "cut": whole[: len(whole) // 2],
        "only a header": whole[:1000],
        "longer": whole + b"more",
        "a header of 2^64": b"\xff" * 8 + whole[8:],
        "text": b"<html>not found</html>",
        **{f"byte {at} changed": changed(whole, at) for at in (-1, -5000, len(whole) // 2, len(whole) - 100_000)},
    }
    for name, content in damaged.items():
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(content)
        for words in (
            ["linear", path, f"folder:{pictures}", "--runs", tmp_path / "runs"],
            ["import", path, "-o", tmp_path / "new.safetensors"],
            ["inspect", path],
            ["evaluate", path, f"folder:{pictures}"],
            ["predict", path, pictures],
        ):
            said = run(*words)
            assert (said.status, said.out) == (2, ""), (name, words[0])
            assert said.err.startswith(f"error: {path}: "), (name, words[0], said.err)
            assert said.err.count("\n") == 1
    assert not (tmp_path / "new.safetensors").exists()
    assert not (tmp_path / "runs").exists()


def changed(content: bytes, at: int) -> bytes:
    new = bytearray(content)
    new[at] ^= 1
    return bytes(new)


def test_a_hostile_file_runs_nothing_and_leaves_nothing(run: Callable[..., Said], tmp_path: Path) -> None:
    marker, output = tmp_path / "marker", tmp_path / "out.safetensors"
    pickles = {**live_pickles(marker), **dead_pickles()}
    files = {
        **{f"{name} in a zip": zip_of(content) for name, content in pickles.items()},
        **{f"{name} in a legacy file": legacy_of(content) for name, content in pickles.items()},
        **pickles,
        **zip_tricks(),
    }
    path = tmp_path / "hostile.pth"
    for name, content in files.items():
        path.write_bytes(content)
        said = run("import", path, "-o", output)
        assert (said.status, said.out) == (2, ""), (name, said)
        assert said.err.startswith(f"error: {path}: "), (name, said.err)
        assert said.err.count("\n") == 1
    assert not marker.exists()
    assert not output.exists()


def test_a_state_dict_that_fits_only_half_is_refused_with_counts(run: Callable[..., Said], tmp_path: Path) -> None:
    state = sparse_backbone().module.state_dict()
    path, output = tmp_path / "half.pth", tmp_path / "out.safetensors"
    half = dict(list(state.items())[: len(state) // 2])
    strange = {**state, "layer9.conv.weight": torch.zeros(3, 3)}
    for tensors, words in (
        (half, ["--arch", "resnet20"]),
        (strange, ["--arch", "resnet20"]),
        (state, ["--arch", "resnet50"]),
        ({"a": torch.zeros(2)}, []),
        ({}, []),
    ):
        torch.save(tensors, path)
        said = run("import", path, "-o", output, *words)
        assert (said.status, said.out) == (2, ""), said
        assert said.err.startswith(f"error: {path}: ")
        assert said.err.count("\n") == 1
    assert not output.exists()


def test_features_that_are_no_numbers_are_refused_by_every_verb(
    run: Callable[..., Said], pictures: Path, tmp_path: Path
) -> None:
    words = [*QUICKLY, "--runs", tmp_path / "runs"]
    good, bad = tmp_path / "good.safetensors", tmp_path / "bad.safetensors"
    assert (
        run("linear", checkpoint_file(tmp_path / "tiny.safetensors"), f"folder:{pictures}", *words, "-o", good).status
        == 0
    )
    broken = load(good).network
    with torch.no_grad():
        broken.backbone.module.get_parameter("bn1.bias").fill_(float("nan"))
    save(broken, bad)
    first = sorted((pictures / "test" / "blue stripes").iterdir())[0]
    for command in (
        ["linear", bad, f"folder:{pictures}", *words],
        ["evaluate", bad, f"folder:{pictures}"],
        ["predict", bad, first],
    ):
        said = run(*command)
        assert (said.status, said.out) == (2, ""), command[0]
        assert said.err == (
            f"error: {first}: its features hold NaN or infinity; look at the backbone's weights, and use fp32 if this "
            "was bf16\n"
        )
