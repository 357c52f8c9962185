"""A recipe in a TOML file: each setting has the type of its option, and what is wrong is one sentence with its key."""

from pathlib import Path

import pytest

from sparse_transfer.cli.finetune import command
from sparse_transfer.cli.main import run


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "recipe.toml"


def taken(config: Path, text: str, *typed: str) -> dict[str, object]:
    """What the command would be called with."""
    config.write_text(text, encoding="utf-8")
    return command.make_context("finetune", ["a.safetensors", "digits", "-c", str(config), *typed]).params


def refusal(config: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert run(["finetune", "a.safetensors", "digits", "-c", str(config)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said.removeprefix(f"error: {config}: ").removesuffix("\n")


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("lr = 1", "lr", 1.0),
        ("lr = 1e-2", "lr", 0.01),
        ("epochs = 3", "epochs", 3),
        ("save_minutes = 0.5", "save_minutes", 0.5),
        ("freeze-bn = true", "freeze_bn", True),
        ("compile = false", "compiled", False),
        ('freeze = "conv1"', "freeze", ("conv1",)),
        ('freeze = ["conv1", "layer1"]', "freeze", ("conv1", "layer1")),
        ("freeze = []", "freeze", ()),
        ("decay-milestones = [1, 2]", "decay_milestones", (1, 2)),
        ("decay-milestones = [7]", "decay_milestones", (7,)),
        ("decay-milestones = 7", "decay_milestones", (7,)),
        ('decay-milestones = "1,2"', "decay_milestones", (1, 2)),
        ("seeds = 2", "seeds", (21, 51)),
        ("seeds = [2]", "seeds", (2,)),  # the seed 2, and not two seeds
        ("seeds = [21, 52]", "seeds", (21, 52)),
        ("seed = 42", "seeds", (42,)),
        ("cache-images = 0", "cache_images", 0),
        ('cache-images = "2K"', "cache_images", 2048),
        ('cache-images = "2KB"', "cache_images", 2000),
        ('sched = "cosine"', "sched", "cosine"),
        ('teacher = "big.safetensors"', "teacher", Path("big.safetensors")),
        ("\ufeffepochs = 3", "epochs", 3),  # as Windows' editor saves it
    ],
)
def test_a_setting_is_taken_as_if_it_were_typed(config: Path, line: str, name: str, value: object) -> None:
    found = taken(config, line)[name]
    assert (found, type(found)) == (value, type(value) if not isinstance(value, Path) else type(Path()))


def test_what_is_typed_goes_first(config: Path) -> None:
    found = taken(config, 'epochs = 3\nlr = 0.5\nfreeze = ["conv1"]\n', "--epochs", "4", "--freeze", "layer1")
    assert (found["epochs"], found["lr"], found["freeze"]) == (4, 0.5, ("layer1",))


def test_a_seed_that_is_typed_goes_before_seeds_of_a_file_and_the_other_way_round(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert taken(config, "seeds = 2\n", "--seed", "42")["seeds"] == (42,)
    assert taken(config, "seed = 42\n", "--seeds", "2")["seeds"] == (21, 51)
    config.write_text("seed = 42\nseeds = 2\n")
    assert run(["finetune", "a.safetensors", "digits", "-c", str(config)]) == 2
    assert capsys.readouterr().err == "error: --seed and --seeds were given; choose one\n"


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("lr = true", "lr takes a number, not true"),
        ("lr = [1]", "lr takes a number, not [1]"),
        ('lr = "fast"', 'lr takes a number, not "fast"'),
        ("lr = 2026-01-01", 'lr takes a number, not "2026-01-01"'),
        ("epochs = true", "epochs takes a whole number, not true"),
        ("epochs = 1.5", "epochs takes a whole number, not 1.5"),
        ("epochs = 0", "epochs: 0 is not in the range x>=1"),
        ("freeze = [1]", "freeze takes a text or a list of texts, not [1]"),
        ("freeze = true", "freeze takes a text or a list of texts, not true"),
        ('freeze-bn = "yes"', 'freeze-bn takes true or false, not "yes"'),
        ("freeze_bn = 1", "freeze_bn takes true or false, not 1"),
        ("decay-milestones = [1, true]", "decay-milestones takes a whole number or a list of them, not [1, true]"),
        ("decay-milestones = []", "decay-milestones takes a whole number or a list of them, not []"),
        ('decay-milestones = "1;2"', 'decay-milestones: "1;2" is no list of epochs'),
        ("seeds = 1.5", "seeds takes a whole number or a list of them, not 1.5"),
        ("seed = [21]", "seed takes a whole number, not [21]"),
        ("seed = -1", "seed: -1 is not in the range 0<=x<=9223372036854775807"),
        ("seeds = [3, 3]", 'seeds: "3,3" repeats a seed or has one outside 0 to 2^63 - 1'),
        ("cache-images = true", "cache-images takes a whole number or a text, not true"),
        ('cache-images = "big"', 'cache-images: "big" is no size: write 500M or 20GB'),
        ('sched = "linear"', 'sched takes one of "step", "cosine", "constant", not "linear"'),
        ("teacher = 1", "teacher takes a text, not 1"),
        ("[opt]\nlr = 1", 'opt takes one of "sgd", "adamw", not {"lr": 1}'),
        ("wd = 1\nweight-decay = 1", '"weight-decay" is set twice, under two of its names; take one line away'),
        ("epoch = 5", 'no option is called "epoch"; did you mean "epochs"?'),
        ("checkpoint = 5", 'no option is called "checkpoint"; `sparse-transfer finetune --help` lists them'),
        ("quiet = true", 'no option is called "quiet"; `sparse-transfer finetune --help` lists them'),
    ],
)
def test_a_setting_of_another_type_is_one_sentence(
    config: Path, line: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(line + "\n")
    assert refusal(config, capsys) == sentence


def test_a_file_that_is_no_toml_is_one_sentence(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refusal(config, capsys) == "there is no such file"
    for content in (b"epochs 5", b"\xff\xfe", b"a = " + b"[" * 20_000, b"epochs = " + b"9" * 5000):
        config.write_bytes(content)
        said = refusal(config, capsys)
        assert said.startswith("it is no TOML (")
        assert said.endswith("; write lines such as lr = 0.01")
    config.unlink()
    config.mkdir()
    assert refusal(config, capsys) == "this is a folder; give a TOML file"
