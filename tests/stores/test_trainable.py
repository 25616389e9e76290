"""Training through a store: the gradient that reaches it, and the rows that come back."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import mnemos
from mnemos.ops.retrieval import mix, reinforce, sample, soft_top_k, straight_through
from mnemos.stores.base import Store
from mnemos.stores.row_optimizer import RowOptimizer, adagrad, adam, sgd
from mnemos.stores.trainable import Retrieved, TrainableRows


@pytest.fixture(params=[":memory:", "embedded"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with mnemos.open(":memory:" if request.param == ":memory:" else tmp_path / "rows.memory") as opened:
        yield opened


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def fill(store: Store, count: int = 12, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    keys, values = draw(count, 4, seed=1).to(dtype), draw(count, 2, seed=2).to(dtype)
    return store.write(keys, values, metadata=[{"row": row} for row in range(count)]), keys, values


def loss_of(found: Retrieved) -> Tensor:
    outputs = mix(soft_top_k(found.scores, found.scores.shape[1]), found.values)
    return (outputs - torch.tensor([1.0, -1.0])).pow(2).sum()


class Table:
    """The same rows as parameters of their own, so that torch's optimisers keep a state for each."""

    def __init__(self, keys: Tensor, values: Tensor):
        self.keys = [nn.Parameter(row.clone()) for row in keys]
        self.values = [nn.Parameter(row.clone()) for row in values]

    def read(self, queries: Tensor, k: int) -> Retrieved:
        keys, values = torch.stack(list(self.keys)), torch.stack(list(self.values))
        ids = (queries @ keys.T).argsort(dim=1, descending=True, stable=True)[:, :k]
        scores = (queries.unsqueeze(1) * keys[ids]).sum(-1)
        return Retrieved(ids, scores, keys[ids], values[ids])

    def backward(self, loss: Tensor, read: Tensor) -> None:
        loss.backward()
        for row in set(range(len(self.keys))) - set(read.flatten().tolist()):
            self.keys[row].grad = self.values[row].grad = None  # torch then passes the row over


@pytest.mark.parametrize(
    ("ours", "torchs"),
    [
        (sgd(0.1), lambda rows: torch.optim.SGD(rows, lr=0.1)),
        (adagrad(0.1), lambda rows: torch.optim.Adagrad(rows, lr=0.1)),
        (adam(0.05), lambda rows: torch.optim.Adam(rows, lr=0.05)),
        (
            adam(0.05, (0.5, 0.7), 1e-3),
            lambda rows: torch.optim.Adam(rows, lr=0.05, betas=(0.5, 0.7), eps=1e-3),
        ),
    ],
    ids=["sgd", "adagrad", "adam", "adam-betas"],
)
@pytest.mark.parametrize("trained", ["values", "both"])
def test_equals_torchs_optimiser_with_a_state_for_each_row(
    store: Store, ours: RowOptimizer, torchs: Callable, trained: str
) -> None:
    ids, keys, values = fill(store)
    rows = TrainableRows(store, keys=None if trained == "values" else ours, values=ours)
    table = Table(keys, values)
    optimizer = torchs(table.values + (table.keys if trained == "both" else []))
    for step in range(8):
        queries = draw(2, 4, seed=10 + step)
        found, twin = rows.read(queries, k=2), table.read(queries, k=2)
        assert torch.equal(found.ids, ids[twin.ids])
        torch.testing.assert_close(found.scores, twin.scores)
        loss_of(found).backward()
        assert rows.step() == found.ids.unique().numel()
        table.backward(loss_of(twin), twin.ids)
        optimizer.step()
        optimizer.zero_grad()
    stored_keys, stored_values = store.gather(ids)
    torch.testing.assert_close(stored_keys, torch.stack(list(table.keys)).detach())
    torch.testing.assert_close(stored_values, torch.stack(list(table.values)).detach())
    assert not torch.equal(stored_values, values)
    assert torch.equal(stored_keys, keys) == (trained == "values")


def test_equals_sparse_adam_where_every_row_is_read_in_every_step(store: Store) -> None:
    values = draw(5, 2, seed=2).double()
    ids = store.write(draw(5, 4, seed=1), values)
    table = nn.Embedding.from_pretrained(values.clone(), freeze=False, sparse=True)
    # SparseAdam adds its epsilon before the correction for a short past, Adam after: it must not count.
    optimizer = torch.optim.SparseAdam(table.parameters(), lr=0.05, eps=1e-15)
    rows = TrainableRows(store, values=adam(0.05, epsilon=1e-15))
    for step in range(6):
        found = rows.read(draw(3, 4, seed=step).double(), k=5)
        loss_of(found).backward()
        rows.step()
        loss_of(found._replace(values=table(found.ids - ids[0]))).backward()
        optimizer.step()
        optimizer.zero_grad()
    torch.testing.assert_close(store.gather(ids)[1], table.weight.detach(), rtol=1e-9, atol=1e-9)


def test_a_step_is_one_transaction_and_leaves_other_rows_as_they_were(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, *_ = fill(store, 20)
    store.update(ids[-1:], values=torch.tensor([[torch.nan, -0.0]]))
    before = store.get(ids)
    updates = []
    update = store.update
    monkeypatch.setattr(
        store, "update", lambda *given, **named: (updates.append(given), update(*given, **named))
    )
    rows = TrainableRows(store, keys=sgd(0.1), values=adam(0.1))
    found = [rows.read(draw(2, 4, seed=seed), k=3, where={"row": {"lt": 19}}) for seed in range(2)]
    sum(loss_of(each) for each in found).backward()
    moved = torch.cat([each.ids.flatten() for each in found]).unique()
    assert rows.step() == len(moved)
    assert [given[0].tolist() for given in updates] == [moved.tolist()]
    after, still = store.get(ids), ~torch.isin(ids, moved)
    assert still.sum() >= 5
    for name in ("keys", "values"):
        was, now = getattr(before, name).view(torch.int32), getattr(after, name).view(torch.int32)
        assert torch.equal(was[still], now[still])
        assert (was[~still] != now[~still]).any(dim=1).all()
    assert before.metadata == after.metadata
    assert rows.step() == 0  # a step uses up what was read


def test_a_row_found_twice_gathers_both_gradients(store: Store) -> None:
    ids, keys, values = fill(store, 3)
    rows = TrainableRows(store, values=sgd(1.0))
    found = [rows.read(keys[:2] * 0 + 1, k=3), rows.read(keys[:1], k=3)]
    sum(each.values.sum() for each in found).backward()
    rows.step()
    torch.testing.assert_close(store.gather(ids)[1], values - 3)


def test_a_store_that_refuses_changes_nothing_and_the_step_can_be_taken_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, *_ = fill(store)
    rows = TrainableRows(store, values=adam(0.1))
    loss_of(rows.read(draw(2, 4), k=3)).backward()
    rows.step()
    knowledge, stored = rows.state_dict(), store.gather(ids)[1]
    loss_of(rows.read(draw(2, 4), k=3)).backward()
    with monkeypatch.context() as patch:
        patch.setattr(
            store, "update", lambda *_, **__: (_ for _ in ()).throw(OSError("No space left on device"))
        )
        with pytest.raises(OSError, match="No space left"):
            rows.step()
    assert torch.equal(store.gather(ids)[1], stored)
    assert all(
        torch.equal(rows.state_dict()["values"][name], knowledge["values"][name])
        for name in ("steps", "moments")
    )
    assert rows.step() > 0
    assert not torch.equal(store.gather(ids)[1], stored)


def test_rows_that_are_gone_or_gradients_that_are_not_finite_stop_the_step(store: Store) -> None:
    ids, keys, values = fill(store)
    rows = TrainableRows(store, values=sgd(0.1))
    found = rows.read(keys[:1], k=2)
    loss_of(found).backward()
    store.delete(found.ids[0, :1])
    with pytest.raises(KeyError):
        rows.step()
    rows.zero_grad()
    assert rows.step() == 0
    (rows.read(keys[3:4], k=2).values * torch.inf).sum().backward()
    with pytest.raises(ValueError, match="a gradient of the values is not finite"):
        rows.step()
    left = ids[ids != found.ids[0, 0]]
    assert torch.equal(store.gather(left)[1], values[ids != found.ids[0, 0]])


def test_what_somebody_else_wrote_meanwhile_is_built_upon(store: Store) -> None:
    ids, keys, values = fill(store, 2)
    rows = TrainableRows(store, values=sgd(1.0))
    rows.read(keys, k=2).values[0].sum().backward()
    store.update(ids, values=values + 100)
    rows.step()
    torch.testing.assert_close(store.gather(ids)[1], values + 99)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rows_are_trained_in_float32_and_rounded_once(
    store: Store, dtype: torch.dtype
) -> None:
    ids, keys, values = fill(store, dtype=dtype)
    rows = TrainableRows(store, keys=sgd(0.1), values=sgd(0.1))
    found = rows.read(draw(2, 4), k=3)
    assert found.values.dtype == torch.float32
    loss_of(found).backward()
    exact_keys, exact_values = keys.float().requires_grad_(), values.float().requires_grad_()
    at = found.ids - ids[0]
    scores = (draw(2, 4).unsqueeze(1) * exact_keys[at]).sum(-1)
    loss_of(Retrieved(at, scores, exact_keys[at], exact_values[at])).backward()
    rows.step()
    new_keys, new_values = store.gather(ids)
    assert new_values.dtype == dtype
    half_a_place = torch.finfo(dtype).eps / 2
    for new, exact in ((new_keys, exact_keys), (new_values, exact_values)):
        torch.testing.assert_close(
            new.float(), exact.detach() - 0.1 * exact.grad, rtol=half_a_place * 1.01, atol=1e-7
        )


@pytest.mark.parametrize("metric", ["inner_product", "cosine", "euclidean"])
def test_the_gradient_reaches_the_query_under_every_metric(metric: str) -> None:
    with mnemos.open(":memory:", metric=metric) as store:
        _, keys, _ = fill(store)
        rows = TrainableRows(store)  # all constant
        queries = draw(2, 4).double().requires_grad_()

        def outputs(queries: Tensor) -> Tensor:
            scores = rows.read(queries, k=4).scores
            best_first = -scores if metric == "euclidean" else scores
            return mix(soft_top_k(best_first, 4), rows.read(queries, k=4).values)

        assert torch.autograd.gradcheck(outputs, (queries,))
        torch.testing.assert_close(
            rows.read(queries, k=4).scores.detach().float(), store.read(queries.detach(), 4).scores.float()
        )
        at_a_key = keys[:1].double().requires_grad_()
        rows.read(at_a_key, k=4).scores.sum().backward()
        assert at_a_key.grad.isfinite().all()
        assert rows.step() == 0


def test_fewer_records_than_asked_for_leave_zeros_and_finite_gradients(store: Store) -> None:
    rows = TrainableRows(store, keys=sgd(0.1), values=sgd(0.1))
    queries = draw(3, 4).requires_grad_()
    assert (rows.read(queries, k=2).ids == -1).all()  # an empty store
    fill(store, 2)
    found = rows.read(queries, k=5)
    assert (found.ids[:, 2:] == -1).all()
    assert found.scores[:, 2:].isneginf().all()
    assert not found.values[:, 2:].any()
    loss_of(found).backward()
    assert queries.grad.isfinite().all()
    assert rows.step() == 2
    with torch.no_grad():
        rows.read(queries, k=2)
    assert rows.step() == 0


def test_bits_and_integers_can_be_read_but_not_trained() -> None:
    with mnemos.open(":memory:") as store:
        store.write(torch.tensor([[1], [7]], dtype=torch.uint8), torch.tensor([[1], [2]]))
        found = TrainableRows(store).read(torch.tensor([[3]], dtype=torch.uint8), k=2)
        assert found.scores.tolist() == [[1.0, 1.0]]
        assert found.values.tolist() == [[[1], [2]]]
        for name in ("keys", "values"):
            with pytest.raises(ValueError, match=f"{name} of torch.* have no gradient"):
                TrainableRows(store, **{name: sgd(0.1)}).read(torch.tensor([[3]], dtype=torch.uint8))


def test_saved_and_loaded_optimisers_continue_as_if_never_stopped(store: Store) -> None:
    ids, *_ = fill(store)

    def train(rows: TrainableRows, seeds: range) -> None:
        for seed in seeds:
            loss_of(rows.read(draw(2, 4, seed=seed), k=3)).backward()
            rows.step()

    first = TrainableRows(store, values=adam(0.1))
    train(first, range(3))
    saved, halfway = io.BytesIO(), store.gather(ids)[1]
    torch.save(first.state_dict(), saved)
    train(first, range(3, 6))
    uninterrupted = store.gather(ids)[1]
    store.update(ids, values=halfway)
    second = TrainableRows(store, values=adam(0.1))
    saved.seek(0)
    second.load_state_dict(torch.load(saved, weights_only=True))
    train(second, range(3, 6))
    assert torch.equal(store.gather(ids)[1], uninterrupted)
    with pytest.raises(ValueError, match="the state of values is of adam, and values are trained by sgd"):
        TrainableRows(store, values=sgd(0.1)).load_state_dict(first.state_dict())


def test_what_was_learned_through_a_store_is_there_after_it_is_opened_again(tmp_path: Path) -> None:
    """Eight symbols name eight targets; the encoder and the stored values learn which."""
    targets = draw(8, 3, seed=5)
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Embedding(8, 16), nn.Linear(16, 4))
    descent = torch.optim.Adam(encoder.parameters(), lr=0.02)

    def answer(rows: TrainableRows) -> Tensor:
        found = rows.read(encoder(torch.arange(8)), k=4)
        return mix(soft_top_k(found.scores, 4), found.values)

    with mnemos.open(tmp_path / "learned.memory") as store:
        store.write(2 * draw(32, 4, seed=6), torch.zeros(32, 3))
        rows = TrainableRows(store, values=adam(0.1))
        before = (answer(rows) - targets).pow(2).mean().item()
        rows.zero_grad()
        for _ in range(60):
            loss = (answer(rows) - targets).pow(2).mean()
            descent.zero_grad()
            loss.backward()
            descent.step()
            rows.step()
        learned = answer(rows).detach()
    assert (learned - targets).pow(2).mean() < 0.05 * before
    with mnemos.open(tmp_path / "learned.memory") as store:
        assert torch.equal(answer(TrainableRows(store)), learned)


@pytest.mark.parametrize("estimator", ["soft_top_k", "straight_through", "reinforce"])
def test_an_encoder_learns_which_record_to_choose(estimator: str) -> None:
    """Six symbols, each to be answered by one record; only the loss of what was read says by which."""
    estimators = {"soft_top_k": lambda scores: soft_top_k(scores, 6), "straight_through": straight_through}
    generator = torch.Generator().manual_seed(3)
    encoder = nn.Embedding.from_pretrained(torch.zeros(6, 6), freeze=False)  # all records score alike
    descent = torch.optim.Adam(encoder.parameters(), lr=0.2)
    with mnemos.open(":memory:") as store:
        store.write(torch.eye(6), torch.eye(6))
        rows = TrainableRows(store)
        wanted = torch.tensor([3, 1, 4, 0, 5, 2]).repeat(4)  # four draws of each symbol
        symbols = torch.arange(6).repeat(4)
        for _ in range(40):
            found = rows.read(encoder(symbols), k=6, touch=False)
            if estimator == "reinforce":
                weights, log_probability = sample(found.scores, generator)
            else:
                weights = estimators[estimator](found.scores)
            loss = (mix(weights, found.values) - torch.eye(6)[wanted]).pow(2).sum(-1)
            if estimator == "reinforce":
                loss = reinforce(loss, log_probability, baseline=1.0)
            descent.zero_grad()
            loss.mean().backward()
            descent.step()
        assert torch.equal(rows.read(encoder(symbols), k=1).values.argmax(-1).squeeze(1), wanted)


def test_rows_gathered_by_id_are_trained_like_rows_found(store: Store) -> None:
    ids, _, values = fill(store)
    rows = TrainableRows(store, values=sgd(0.5))
    asked = ids[[3, 1, 3]]
    gathered = rows.gather(asked)
    torch.testing.assert_close(gathered, values[[3, 1, 3]])
    gathered.sum().backward()
    assert rows.step() == 2
    expected = values.clone()
    expected[3] -= 0.5 * 2  # asked for twice
    expected[1] -= 0.5
    torch.testing.assert_close(store.gather(ids)[1], expected)
    assert store.get(ids).usage.times_read.tolist() == [0] * 12
    with pytest.raises(KeyError):
        rows.gather(torch.tensor([10_000]))
