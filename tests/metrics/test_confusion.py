import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, recall_score

from sparse_transfer.core.errors import UserError
from sparse_transfer.metrics.confusion import Confusion, predict

pairs = st.integers(1, 6).flatmap(
    lambda classes: st.tuples(
        st.just(classes),
        st.lists(st.tuples(st.integers(0, classes - 1), st.integers(0, classes - 1)), min_size=1, max_size=60),
    )
)


@given(pairs)
def test_counts_and_accuracies_are_those_of_scikit_learn(case: tuple[int, list[tuple[int, int]]]) -> None:
    classes, both = case
    labels, predictions = np.array(both, dtype=np.int64).T
    confusion = Confusion.of(labels, predictions, classes)
    np.testing.assert_array_equal(confusion.counts, confusion_matrix(labels, predictions, labels=range(classes)))
    present = np.unique(labels)
    assert confusion.top1 == np.mean(labels == predictions)
    expected = recall_score(labels, predictions, labels=present, average=None, zero_division=0)
    np.testing.assert_allclose(confusion.recall[present], expected, rtol=1e-15)
    assert confusion.mean_per_class == pytest.approx(expected.mean(), rel=1e-14)
    if len(present) > 1 and set(predictions.tolist()) <= set(present.tolist()):  # scikit-learn warns otherwise
        assert confusion.mean_per_class == pytest.approx(balanced_accuracy_score(labels, predictions), rel=1e-14)


@given(pairs, st.integers(0, 60))
def test_the_matrices_of_two_parts_add_up_to_that_of_the_whole(
    case: tuple[int, list[tuple[int, int]]], cut: int
) -> None:
    classes, both = case
    labels, predictions = np.array(both, dtype=np.int64).T
    cut = min(cut, len(labels))
    whole = Confusion.of(labels, predictions, classes)
    parts = [
        Confusion.of(labels[part], predictions[part], classes)
        for part in (slice(0, cut), slice(cut, None))
        if len(labels[part])
    ]
    total = parts[0] + parts[1] if len(parts) == 2 else parts[0]
    np.testing.assert_array_equal(total.counts, whole.counts)


def test_rows_are_true_and_columns_are_predicted() -> None:
    confusion = Confusion.of(np.array([0, 0, 1]), np.array([1, 1, 1]), ["cat", "dog"])
    assert confusion.counts.tolist() == [[0, 2], [0, 1]]
    assert (confusion.correct, confusion.total) == (1, 3)
    assert confusion.mean_per_class == 0.5


def test_a_class_without_test_images_is_named_and_left_out_of_the_mean() -> None:
    confusion = Confusion.of(np.array([0, 0, 2]), np.array([0, 1, 2]), ["cat", "dog", "owl"])
    assert confusion.empty_classes == ("dog",)
    assert confusion.mean_per_class == 0.75
    assert np.isnan(confusion.recall[1])


def test_counts_are_exact_where_float32_is_not() -> None:
    many = 2**24 + 1
    counts = np.array([[many, 0], [1, many]], dtype=np.int64)
    confusion = Confusion(counts, ("a", "b"))
    assert (confusion.correct, confusion.total) == (2 * many, 2 * many + 1)
    counts[0, 0] = 0
    assert confusion.correct == 2 * many  # a matrix keeps its own counts
    with pytest.raises(ValueError, match="read-only"):
        confusion.counts[0, 0] = 1


def test_labels_of_any_integer_type_do_not_overflow() -> None:
    confusion = Confusion.of(np.full(3, 200, dtype=np.uint8), np.full(3, 199, dtype=np.uint8), 201)
    assert confusion.counts[200, 199] == 3


def test_of_equal_logits_the_first_is_predicted() -> None:
    logits = np.array([[1.0, 1.0, 0.0], [0.0, 2.0, 2.0], [-np.inf, -np.inf, -np.inf]])
    assert predict(logits).tolist() == [0, 1, 0]
    assert predict(np.array([[0.0, np.inf]])).tolist() == [1]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_predictions_are_those_of_torch(dtype: type) -> None:
    logits = np.random.default_rng(0).normal(size=(50, 7)).astype(dtype)
    np.testing.assert_array_equal(predict(logits), torch.from_numpy(logits).argmax(dim=1).numpy())


def test_nan_logits_are_refused_with_the_count_of_images() -> None:
    logits = np.zeros((3, 2))
    logits[1] = np.nan
    with pytest.raises(UserError) as error:
        predict(logits)
    assert str(error.value) == (
        "the logits of 1 of 3 images are NaN (first: image 1); look for NaN in the features, or lower --lr"
    )


@pytest.mark.parametrize(
    ("labels", "predictions", "said"),
    [
        ([0, 1], [0], "2 labels and 1 predictions"),
        ([], [], "there are no test images"),
        ([0, 2], [0, 0], r"1 of 2 labels lie outside \[0, 2\) \(first: 2 at 1\)"),
        ([0, 1], [-1, 5], r"2 of 2 predictions lie outside \[0, 2\) \(first: -1 at 0\)"),
    ],
)
def test_bad_labels_are_refused(labels: list[int], predictions: list[int], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Confusion.of(np.array(labels, dtype=np.int64), np.array(predictions, dtype=np.int64), 2)


def test_labels_that_are_no_integers_are_refused() -> None:
    with pytest.raises(UserError, match=r"labels of float64 \[1\]; they are \[N\] integers"):
        Confusion.of(np.array([0.0]), np.array([0]), 2)  # type: ignore[arg-type]


def test_matrices_of_different_classes_do_not_add() -> None:
    one, other = (Confusion.of(np.array([0]), np.array([0]), names) for names in (["a"], ["b"]))
    with pytest.raises(ValueError, match="different classes"):
        _ = one + other
