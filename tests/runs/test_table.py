import csv
import io
import json
import random
import statistics
from dataclasses import replace
from pathlib import Path

import pytest

from sparse_transfer.runs.finished import FinishedRun
from sparse_transfer.runs.identity import RunIdentity
from sparse_transfer.runs.table import Row, Summary, rows, summarise, to_csv, to_json
from sparse_transfer.runs.table_text import to_text
from support.runs import identity, result


def finished(of: RunIdentity, *, right: int = 90, attempt: str = "", **changes: object) -> FinishedRun:
    made = replace(result(of, right=right), **changes)  # type: ignore[arg-type]
    return FinishedRun(Path("runs") / f"{of.folder}{attempt}", made)


def five_seeds(**changes: object) -> list[FinishedRun]:
    rights = {21: 90, 51: 91, 81: 89, 111: 92, 141: 88}
    return [finished(identity(seed, **changes), right=right) for seed, right in rights.items()]


def test_the_published_columns_come_first_under_their_names() -> None:
    header = to_csv(rows(five_seeds())).splitlines()[0]
    assert header.startswith("dset,model,sparsity,seed,val_acc,")


def test_published_files_read_with_the_same_columns(test_data: Path) -> None:
    published = test_data / "reference" / "raw_results" / "linear_transfer_results.txt"
    theirs = next(csv.reader(published.read_text().splitlines()))
    assert to_csv(rows(five_seeds())).splitlines()[0].split(",")[: len(theirs)] == theirs


def test_a_row_says_what_the_record_says() -> None:
    (row,) = rows([finished(identity())])
    done = result()
    assert (row.dset, row.model, row.sparsity, row.seed) == ("pets", "AC/DC", 0.8, "seed_21")
    assert (row.val_acc, row.low, row.high) == (done.value, done.interval.low, done.interval.high)
    assert (row.top1, row.mean_per_class, row.n) == (140 / 150, 0.95, 150)
    assert row.best == pytest.approx((0.95 + 1) / 2)
    assert (row.macs, row.macs_dense, row.seconds) == (900_000_000, 4_089_184_256, 4.0)
    assert row.solver == "sgd"
    assert row.warnings == ("the licence is unknown; ask the authors",)
    assert row.run == f"seed21-{identity().id}"


def test_what_a_checkpoint_does_not_claim_is_measured_or_empty() -> None:
    (measured,) = rows([finished(identity(), sparsity=None, model="")])
    assert (measured.model, measured.sparsity) == ("acdc80", 0.79)
    (bare,) = rows([finished(identity(), sparsity=None, cost=None, solver=None, best=None)])
    assert (bare.sparsity, bare.macs, bare.best, bare.solver) == (None, None, None, "")
    assert ",,seed_21," in to_csv([bare])


def test_the_order_depends_on_nothing_but_the_rows() -> None:
    runs = [*five_seeds(), *five_seeds(dataset="SUN"), *five_seeds(dataset="cars"), *five_seeds(protocol="clean")]
    first = rows(runs)
    assert [row.dset for row in first[::5]] == ["cars", "pets", "pets", "SUN"]
    assert [row.seed for row in first[:5]] == ["seed_21", "seed_51", "seed_81", "seed_111", "seed_141"]
    for seed in range(5):
        shuffled = random.Random(seed).sample(runs, len(runs))
        assert rows(shuffled) == first
        assert summarise(rows(shuffled)) == summarise(first)


def test_seeds_are_one_line_with_mean_and_sample_deviation() -> None:
    (line,) = summarise(rows(five_seeds()))
    values = [(right / 100 + 1) / 2 for right in (90, 91, 89, 92, 88)]
    assert (line.seeds, line.over) == (5, "seeds")
    assert line.val_acc == pytest.approx(statistics.mean(values))
    assert line.std == pytest.approx(statistics.stdev(values))
    # t(0.975, 4) = 2.776445
    assert line.high - line.val_acc == pytest.approx(2.776445 * statistics.stdev(values) / 5**0.5, rel=1e-6)
    assert line.top1 == pytest.approx(140 / 150)
    assert line.seconds == 20
    assert line.warnings == ("the licence is unknown; ask the authors",)


def test_one_seed_keeps_its_interval_over_images() -> None:
    (line,) = summarise(rows([finished(identity())]))
    assert (line.seeds, line.std, line.over) == (1, None, "images")
    assert (line.low, line.high) == (result().interval.low, result().interval.high)


@pytest.mark.parametrize(
    "change",
    [
        {"protocol": "clean"},
        {"dataset": "cars"},
        {"transfer": "full"},
        {"checkpoint_digest": "e" * 64},
        {"settings": {"solver": "sgd", "lr": 0.1, "epochs": 3}},
    ],
)
def test_runs_that_differ_in_more_than_the_seed_are_never_averaged(change: dict[str, object]) -> None:
    lines = summarise(rows([*five_seeds(), *five_seeds(**change)]))
    assert [line.seeds for line in lines] == [5, 5]


def test_lines_that_are_alike_but_for_their_settings_say_in_which() -> None:
    usual: dict[str, object] = {"settings": {"solver_settings": {"epochs": 150, "l2": list(range(45))}, "views": 1}}
    other: dict[str, object] = {"settings": {"solver_settings": {"epochs": 6, "l2": 0.1}, "views": 1, "transforms": {}}}
    lines = summarise(rows([*five_seeds(**usual), *five_seeds(**other), *five_seeds(**other, dataset="cars")]))
    assert {line.dset: line.differs for line in lines if line.dset == "cars"} == {"cars": ""}
    assert sorted(line.differs for line in lines if line.dset == "pets") == [
        "epochs=150, l2=45 values",
        "epochs=6, l2=0.1",
    ]
    text = to_text(lines).splitlines()
    numbers = {
        line.partition("  ")[2]: line.partition("  ")[0] for line in text if line.startswith(("1  ", "2  ", "3  "))
    }
    assert {"epochs=150, l2=45 values", "epochs=6, l2=0.1"} <= numbers.keys()
    assert len({line[-3:] for line in text if "±" in line and "per class" in line}) == 3


def test_lines_on_other_pictures_say_so() -> None:
    more = {"splits": {"train": "c" * 64, "test": "b" * 64}}
    lines = summarise(rows([*five_seeds(), *five_seeds(**more)]))
    assert sorted(line.differs for line in lines) == ["fingerprint of train=aaaaaaaa", "fingerprint of train=cccccccc"]


def test_a_name_between_colons_is_no_picture_of_a_cat() -> None:
    assert ":cat:" in to_text(summarise(rows(five_seeds(checkpoint="a:cat:b"))))


@pytest.mark.parametrize("width", [80, 110])
def test_no_name_is_cut_short_however_narrow_the_terminal(width: int) -> None:
    """At 80 columns a data set's name once took the whole of the checkpoint's place."""
    names = {"dataset": "folder-photographs_of_our_garden", "checkpoint": "resnet50-gmp80"}
    text = to_text(summarise(rows([*five_seeds(**names), *five_seeds()])), width)
    lines = text.splitlines()
    assert all(len(line) <= width for line in lines)
    named = [line for line in lines if "folder-photographs_of_our_garden" in line]
    assert len(named) == 1
    assert "resnet50-gmp80" in named[0]
    heading = next(line for line in lines if "95 % interval" in line)
    assert heading.split()[-4:] == ["seeds", "MACs", "s", "notes"]
    (row,) = [line for line in lines[lines.index(named[0]) :][:2] if "±" in line]
    assert row.index(" ± ") < heading.index("accuracy %") + len("accuracy %")


def test_a_run_done_again_counts_once_and_the_newest_counts() -> None:
    again = [finished(identity(), right=10 * n, attempt=f".{n}") for n in (2, 9, 10)]
    everything = rows([again[2], finished(identity()), again[0], again[1]])
    assert [row.run.rpartition(".")[2] for row in everything[1:]] == ["2", "9", "10"]
    (line,) = summarise(everything)
    assert (line.seeds, line.val_acc) == (1, 1.0)


def test_csv_reads_back_cell_by_cell() -> None:
    everything = rows([finished(identity(), warnings=('a "b", c', "second\nline"), partial="12 images; fetch them")])
    (read,) = csv.DictReader(io.StringIO(to_csv(everything)))
    assert float(read["val_acc"]) == everything[0].val_acc
    assert read["warnings"] == 'a "b", c | second\nline'
    assert read["partial"] == "12 images; fetch them"
    assert list(read) == list(Row.__dataclass_fields__)
    summary = to_csv(summarise(everything)).splitlines()[0].split(",")
    assert summary == list(Summary.__dataclass_fields__)


def test_json_reads_back_as_the_rows() -> None:
    everything = rows(five_seeds())
    read = json.loads(to_json(everything))
    assert [Row(**{**row, "warnings": tuple(row["warnings"])}) for row in read] == everything


def test_nothing_is_an_empty_table() -> None:
    assert rows([]) == []
    assert summarise([]) == []
    assert to_csv([]) == ""
    assert json.loads(to_json([])) == []


@pytest.mark.parametrize("width", [80, 100, 120])
def test_the_printed_table_fits_and_loses_no_number(width: int) -> None:
    long_name = five_seeds(dataset="caltech256", checkpoint="wf95-resnet50-imagenet-oneshot", transfer="full")
    text = to_text(summarise(rows([*five_seeds(), *long_name])), width)
    assert all(len(line) <= width for line in text.splitlines())
    assert "…" not in text
    bounds = [(run.result.interval.low, run.result.interval.high) for run in five_seeds()]
    low, high = (100 * statistics.mean(ends) for ends in zip(*bounds, strict=True))
    for number in ("95.00 ± 0.79", f"{low:.2f}–{high:.2f}", " 900 M"):
        assert text.count(number) == 2, number
    assert [line for line in text.splitlines() if "cvpr2022" in line] == ["full cvpr2022 sgd", "linear cvpr2022 sgd"]
    assert text.splitlines()[-2:] == [
        "± is over seeds; intervals are over the test images.",
        "1  the licence is unknown; ask the authors",
    ]


def test_the_printed_table_says_top_1_and_marks_what_is_partial_once() -> None:
    runs = [
        finished(identity(seed, dataset=name), partial="40 of 80 images", metric="top1", warnings=("[bold]w",))
        for name in ("cars", "pets")
        for seed in (21, 51)
    ]
    text = to_text(summarise(rows(runs)))
    assert text.count("top-1") == 2
    assert [line[-3:] for line in text.splitlines() if "top-1" in line] == ["1 2", "1 2"]
    assert text.splitlines()[-2:] == ["1  partial: 40 of 80 images", "2  [bold]w"]


def test_classes_without_test_pictures_are_named_below_the_table() -> None:
    (row,) = rows([finished(identity(), empty_classes=("frog",), warnings=("w",))])
    assert row.warnings == ("w", 'no test picture of "frog": left out of the mean per class')
    text = to_text(summarise([row]))
    assert text.splitlines()[-1] == '2  no test picture of "frog": left out of the mean per class'


def test_colour_only_when_asked_for() -> None:
    lines = summarise(rows(five_seeds()))
    assert "\x1b" not in to_text(lines)
    assert "\x1b" in to_text(lines, colour=True)


def test_an_interval_over_seeds_ends_where_shares_end() -> None:
    (line,) = summarise(rows([finished(identity(21), right=100), finished(identity(51), right=60)]))
    assert (line.over, line.high) == ("seeds", 1.0)
    assert line.low >= 0
