"""SGD against torch's own layer, loss and optimiser; many heads at once against each alone."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse_transfer.core.errors import UserError
from sparse_transfer.solvers import Ended, sgd
from sparse_transfer.solvers.sgd import BatchedSgd, SgdSettings
from support.made_features import made_features

N, D, C = 150, 12, 5
FEATURES, LABELS = made_features(N, D, C)
SHORT = SgdSettings(lr=0.05, epochs=4, boundaries=(2, 3), weight_decay=1e-2)


def _with_torch(seed: int, lr: float, rules: SgdSettings) -> tuple[torch.nn.Linear, list[float]]:
    """One seed, one learning rate: nn.Linear, cross_entropy, torch.optim.SGD, and the documented order of draws."""
    torch.manual_seed(seed)
    layer = torch.nn.Linear(D, C)
    generator = torch.default_generator
    optimiser = torch.optim.SGD(layer.parameters(), lr=lr, momentum=rules.momentum, weight_decay=rules.weight_decay)
    features, labels = torch.from_numpy(FEATURES), torch.from_numpy(LABELS)
    history: list[float] = []
    for epoch in range(rules.epochs):
        optimiser.param_groups[0]["lr"] = lr * 0.1 ** ((epoch >= rules.boundaries[0]) + (epoch >= rules.boundaries[1]))
        total = 0.0
        for chosen in torch.randperm(N, generator=generator).split(rules.batch_size):
            loss = torch.nn.functional.cross_entropy(layer(features[chosen]), labels[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += float(loss.detach()) * len(chosen)
        history.append(total / N)
    return layer, history


def test_every_head_is_what_torch_makes_of_its_seed_and_learning_rate() -> None:
    rules = SgdSettings(lr=(0.05, 0.002), epochs=4, boundaries=(2, 3), weight_decay=1e-2)
    heads = sgd.fit(FEATURES, LABELS, C, rules, [21, 51, 81])
    assert [(head.seed, head.strength) for head in heads] == [(s, lr) for s in (21, 51, 81) for lr in (0.05, 0.002)]
    for head in heads:
        layer, history = _with_torch(head.seed, head.strength, rules)
        # 12 float32 steps: each rounds at 6e-8 of entries below 1
        torch.testing.assert_close(head.head.weight, layer.weight.detach(), rtol=1e-5, atol=2e-6)
        torch.testing.assert_close(head.head.bias, layer.bias.detach(), rtol=1e-5, atol=2e-6)
        assert head.history == pytest.approx(history, rel=1e-5)
        assert head.objective == head.history[-1]
        assert head.iterations == 4 * math.ceil(N / 64)
        assert head.ended is Ended.ALL_EPOCHS


def test_a_head_starts_bit_for_bit_as_torchs_linear_layer_does() -> None:
    heads = BatchedSgd(D, C, SHORT, [21])
    torch.manual_seed(21)
    layer = torch.nn.Linear(D, C)
    assert torch.equal(heads.weights[0], layer.weight)
    assert torch.equal(heads.biases[0], layer.bias)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.integers(0, 2**31), min_size=1, max_size=4, unique=True),
    st.lists(st.sampled_from([0.1, 0.03, 0.001]), min_size=1, max_size=3, unique=True),
    st.integers(1, N + 1),
)
def test_many_heads_at_once_equal_each_alone(seeds: list[int], lrs: list[float], batch_size: int) -> None:
    rules = SgdSettings(lr=tuple(lrs), epochs=2, boundaries=(1,), batch_size=batch_size)
    together = sgd.fit(FEATURES, LABELS, C, rules, seeds)
    alone = [
        sgd.fit(FEATURES, LABELS, C, SgdSettings(lr=lr, epochs=2, boundaries=(1,), batch_size=batch_size), [seed])[0]
        for seed in seeds
        for lr in lrs
    ]
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one.head.weight, other.head.weight, rtol=1e-4, atol=1e-5)
        assert one.history == pytest.approx(other.history, rel=1e-4)


def test_the_published_schedule_is_51_then_50_then_49_epochs() -> None:
    rules = SgdSettings()
    rates = [round(0.01 * rules.decay(epoch), 9) for epoch in range(rules.epochs)]
    assert [rates.count(rate) for rate in (0.01, 0.001, 0.0001)] == [51, 50, 49]
    assert rates == sorted(rates, reverse=True)


def test_shared_batches_move_every_head_as_equal_batches_of_its_own_would() -> None:
    features, labels = torch.from_numpy(FEATURES), torch.from_numpy(LABELS)
    shared, own = (BatchedSgd(D, C, SHORT, [1, 2, 3]) for _ in range(2))
    for heads in (shared, own):
        heads.start_epoch(0)
    for chosen in torch.arange(N).split(40):
        shared.step(features[chosen], labels[chosen])
        own.step(features[chosen].expand(3, -1, -1), labels[chosen].expand(3, -1))
    torch.testing.assert_close(shared.weights, own.weights, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(shared.biases, own.biases, rtol=1e-5, atol=1e-6)
    assert [head.objective for head in shared.finish()] == pytest.approx([head.objective for head in own.finish()])


def test_views_are_taken_in_turn() -> None:
    """With a rate so small that nothing moves, the losses of an epoch are those of its view."""
    rules = SgdSettings(lr=1e-12, epochs=4, boundaries=())
    other = FEATURES[::-1].copy()
    turns = sgd.fit([FEATURES, other], LABELS, C, rules, [3])[0].history
    assert turns[0] == pytest.approx(turns[2]) == pytest.approx(sgd.fit(FEATURES, LABELS, C, rules, [3])[0].history[0])
    assert turns[1] == pytest.approx(turns[3]) == pytest.approx(sgd.fit(other, LABELS, C, rules, [3])[0].history[0])
    assert abs(turns[0] - turns[1]) > 1e-3


def test_views_that_are_missing_or_differ_in_shape_are_refused() -> None:
    with pytest.raises(UserError, match="features: there are none; give at least one view"):
        sgd.fit([], LABELS, C, SHORT, [1])
    narrow = np.ascontiguousarray(FEATURES[:, :7])
    with pytest.raises(UserError, match=r"features: the views differ in shape: \[\(150, 7\), \(150, 12\)\]"):
        sgd.fit([FEATURES, narrow], LABELS, C, SHORT, [1])


def test_the_caller_sees_every_head_after_every_epoch() -> None:
    seen: list[tuple[int, float]] = []
    heads = sgd.fit(
        FEATURES,
        LABELS,
        C,
        SHORT,
        [1, 2],
        on_epoch=lambda epoch, weights, _: seen.append((epoch, float(weights.sum()))),
    )
    assert [epoch for epoch, _ in seen] == [0, 1, 2, 3]
    assert seen[-1][1] == pytest.approx(float(sum(head.head.weight.sum() for head in heads)), rel=1e-5)


def test_a_learning_rate_that_diverges_says_so_and_leaves_the_others_alone() -> None:
    rules = SgdSettings(lr=(1e20, 0.05), epochs=4, boundaries=(2, 3), weight_decay=1e-2)
    wild, tame = sgd.fit(FEATURES, LABELS, C, rules, [5])
    assert wild.ended is Ended.DIVERGED
    assert tame.ended is Ended.ALL_EPOCHS
    torch.testing.assert_close(tame.head.weight, sgd.fit(FEATURES, LABELS, C, SHORT, [5])[0].head.weight)


def test_a_read_only_memory_map_is_read_and_not_changed(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("features") / "features.npy"
    np.save(path, FEATURES)
    mapped = np.load(path, mmap_mode="r")
    from_map, from_memory = (sgd.fit(x, LABELS, C, SHORT, [1])[0] for x in (mapped, FEATURES))
    assert torch.equal(from_map.head.weight, from_memory.head.weight)
    assert np.array_equal(np.load(path), FEATURES)


def test_the_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    sgd.fit(FEATURES, LABELS, C, SHORT, [1])
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"lr": 0.0}, "--lr: a learning rate of 0.0; give finite numbers above 0"),
        ({"lr": ()}, "--lr: a learning rate of (); give finite numbers above 0"),
        ({"momentum": 1.0}, "momentum: a momentum of 1.0; it lies in [0, 1)"),
        ({"weight_decay": -1.0}, "weight_decay: a weight decay of -1.0; it is 0 or more"),
        ({"epochs": 0}, "batches of 64, 0 epochs; both are at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change: dict[str, float], sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        SgdSettings(**change)  # type: ignore[arg-type]
    assert str(caught.value) == sentence


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.integers(0, 2**31), min_size=1, max_size=3, unique=True),
    st.lists(st.sampled_from([0.1, 0.03, 0.001]), min_size=1, max_size=2, unique=True),
    st.integers(1, 3),
)
def test_heads_taken_up_after_any_epoch_end_bit_for_bit_as_those_never_put_down(
    seeds: list[int], lrs: list[float], stop: int
) -> None:
    rules = SgdSettings(lr=tuple(lrs), epochs=4, boundaries=(2, 3), weight_decay=1e-2)

    def train(heads: BatchedSgd, epochs: range) -> BatchedSgd:
        for epoch in epochs:
            heads.start_epoch(epoch)
            order = [torch.randperm(N, generator=generator) for generator in heads.generators]
            for chosen in torch.stack(order).split(64, dim=1):
                heads.step(torch.from_numpy(FEATURES)[chosen], torch.from_numpy(LABELS)[chosen])
        return heads

    unbroken = train(BatchedSgd(D, C, rules, seeds), range(4))
    first = train(BatchedSgd(D, C, rules, seeds), range(stop))
    kept = first.states()
    train(first, range(stop, 4))  # the states share no memory with the heads
    again = BatchedSgd(D, C, rules, seeds)
    again.go_on(kept)
    for one, other in zip(train(again, range(stop, 4)).finish(), unbroken.finish(), strict=True):
        assert torch.equal(one.head.weight, other.head.weight)
        assert torch.equal(one.head.bias, other.head.bias)
        assert (one.history, one.iterations, one.seed, one.strength) == (
            other.history,
            other.iterations,
            other.seed,
            other.strength,
        )


def test_states_of_other_heads_are_refused() -> None:
    heads = BatchedSgd(D, C, SHORT, [1, 2])
    heads.start_epoch(0)
    with pytest.raises(ValueError, match=r"states of heads \[1, 5, 12\], and these are \[2, 5, 12\]"):
        heads.go_on(heads.states()[:1])
