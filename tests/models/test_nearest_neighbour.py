import itertools

import pytest
import torch

from mnemos.models import (
    ChangedDocumentError,
    Mixture,
    OtherModelError,
    check_model,
    excerpt,
    hybrid,
    language_model,
    memorize,
    mixed_nats,
    perplexity,
    predict,
    retrieve,
)
from mnemos.models import nearest_neighbour as module
from mnemos.stores import open as open_store
from mnemos.tasks.text import Document, encode, python_reference, train_tokenizer

MIXTURE = Mixture(temperature=1.0, weight=0.5)


@pytest.fixture(scope="module")
def texts():
    return sorted(python_reference(), key=lambda document: len(document.text))[8:10]


@pytest.fixture(scope="module")
def lm(texts):
    torch.manual_seed(0)
    tokenizer = train_tokenizer(texts, 300)
    model = hybrid(tokenizer.get_vocab_size() + 1, "attention attention", width=16, heads=2, context=8)
    return language_model(model.eval(), tokenizer)


@pytest.fixture
def store(lm):
    with open_store(":memory:", metric="euclidean", fingerprint=lm.fingerprint) as store:
        yield store


def read_all(lm, store, document, **options):
    return list(memorize(lm, store, document, **options))


def contents(store):
    """All that a store holds, but for the time."""
    records = store.get(store.ids())
    return records.keys, records.values, records.usage.strength, records.metadata


def assert_same(one, other):
    for left, right in zip(contents(one), contents(other), strict=True):
        assert torch.equal(left, right) if isinstance(left, torch.Tensor) else left == right


def test_every_token_becomes_a_record(lm, store, texts):
    progress = read_all(lm, store, texts[0])
    tokens = encode(lm.tokenizer, texts[0].text)
    _, values, _, metadata = contents(store)
    assert values.tolist() == tokens.ids.tolist()
    assert [facts["position"] for facts in metadata] == list(range(len(tokens.ids)))
    assert [facts["line"] for facts in metadata] == tokens.lines.tolist()
    assert {facts["source"] for facts in metadata} == {texts[0].name}
    assert [step.tokens for step in progress] == list(itertools.accumulate(s.written for s in progress))
    assert progress[-1].tokens == progress[-1].total == len(tokens.ids)
    assert sum(step.bytes for step in progress) == len(texts[0].text.encode())


@pytest.mark.parametrize("length", [1, 8, 9, 12, 68, 69, 75])
def test_every_token_is_predicted_from_at_least_half_a_context(lm, length):
    ids = torch.randint(lm.model.vocabulary_size - 1, (length,))
    inputs = torch.cat([torch.tensor([lm.model.start]), ids[:-1]])
    steps = list(module._read(lm, ids))
    assert torch.equal(torch.cat([step.targets for step in steps]), ids)
    nats, keys = (torch.cat([getattr(step, name) for step in steps]) for name in ("nats", "keys"))
    for place in {*range(length)} & {0, 3, 7, 8, 11, 12, 40, 67, 68, 69, 74}:
        begin = 0 if place < 8 else (place - 4) // 4 * 4
        features, _ = lm.model.features(inputs[begin : place + 1].unsqueeze(0))
        assert place < 4 or place + 1 - begin >= 5
        torch.testing.assert_close(keys[place], features.keys[0, -1], rtol=0, atol=1e-5)
        expected = -features.logits[0, -1].log_softmax(0)[ids[place]]
        torch.testing.assert_close(nats[place], expected, rtol=0, atol=1e-4)


def test_interrupted_reading_ends_with_the_same_records(lm, store, texts):
    document = texts[1]
    batches = len(read_all(lm, store, document))
    assert batches >= 4
    for stops in ([1], [2, 1], [batches]):
        with open_store(":memory:", metric="euclidean", fingerprint=lm.fingerprint) as other:
            for stop in stops:
                list(itertools.islice(memorize(lm, other, document), stop))
            rest = read_all(lm, other, document)
            assert len(rest) == max(batches - sum(stops), 0)
            assert_same(store, other)


def test_what_was_forgotten_at_the_end_is_read_again(lm, store, texts):
    read_all(lm, store, texts[0])
    before = contents(store)
    store.delete(store.ids()[-21:])
    read_all(lm, store, texts[0])
    for left, right in zip(before, contents(store), strict=True):
        assert torch.equal(left, right) if isinstance(left, torch.Tensor) else left == right


def test_a_store_on_disk_answers_the_same_after_it_was_closed(lm, store, texts, tmp_path):
    read_all(lm, store, texts[0])
    options = {"metric": "euclidean", "fingerprint": lm.fingerprint}
    with open_store(tmp_path / "notes", **options) as durable:
        read_all(lm, durable, texts[0])
    with open_store(tmp_path / "notes", **options) as durable:
        assert_same(store, durable)
        one, other = (retrieve(lm, each, texts[1].text, k=8) for each in (store, durable))
        assert torch.equal(one.agrees, other.agrees)
        torch.testing.assert_close(one.distances, other.distances, rtol=0, atol=1e-3)


def test_memory_knows_what_it_has_read(lm, store, texts):
    read_all(lm, store, texts[0])
    evidence = retrieve(lm, store, texts[0].text)
    assert evidence.distances[:, 0].max() < 0.02  # but for the rounding to float16
    with_memory = perplexity(mixed_nats(evidence, Mixture(0.01, 0.9)))
    assert with_memory < 2 < 100 < perplexity(evidence.nats)


def test_reading_reports_what_the_memory_was_worth_before_each_batch(lm, store, texts):
    copy = Document("copy", texts[0].text)
    for step in memorize(lm, store, texts[0], mixture=MIXTURE):
        assert step.memory_nats != step.model_nats or step.tokens == step.written
    twice = read_all(lm, store, copy, mixture=Mixture(0.01, 0.9))
    assert sum(step.memory_nats for step in twice) < 0.3 * sum(step.model_nats for step in twice)


def test_an_empty_store_and_none_are_the_model_alone(lm, store, texts):
    alone = retrieve(lm, None, texts[0].text)
    empty = retrieve(lm, store, texts[0].text)
    read_all(lm, store, texts[1], namespace="elsewhere")
    isolated = retrieve(lm, store, texts[0].text)
    for evidence in (alone, empty, isolated):
        assert torch.equal(mixed_nats(evidence, MIXTURE), alone.nats)
    assert len(retrieve(lm, store, "").nats) == 0


def test_forgetting_a_document_brings_back_the_score_without_it(lm, store, texts):
    read_all(lm, store, texts[0])
    before = retrieve(lm, store, texts[1].text)
    read_all(lm, store, texts[1])
    assert not torch.equal(before.distances, retrieve(lm, store, texts[1].text).distances)
    store.delete(where={"source": texts[1].name})
    after = retrieve(lm, store, texts[1].text)
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_being_judged_does_not_count_as_use_unless_it_is_meant_to(lm, store, texts):
    read_all(lm, store, texts[0])
    retrieve(lm, store, texts[1].text[:100])
    assert store.get(store.ids()).usage.times_read.sum() == 0
    evidence = retrieve(lm, store, texts[1].text[:100], k=4, touch=True)
    assert store.get(store.ids()).usage.times_read.sum() == 4 * len(evidence.nats)


def test_probabilities_sum_to_one_and_are_those_of_the_evidence(lm, store, texts):
    read_all(lm, store, texts[0])
    ids = encode(lm.tokenizer, texts[0].text).ids[:6]
    prompt, text = (lm.tokenizer.decode(part.tolist()) for part in (ids[:5], ids))
    prediction = predict(lm, store, prompt, MIXTURE, k=16)
    torch.testing.assert_close(prediction.probabilities.sum(), torch.tensor(1.0))
    torch.testing.assert_close(prediction.shares.sum(), torch.tensor(1.0))
    nats = mixed_nats(retrieve(lm, store, text, k=16), MIXTURE)[5]
    torch.testing.assert_close(-prediction.probabilities[ids[5]].log(), nats, rtol=0, atol=1e-4)
    alone = predict(lm, None, prompt, MIXTURE)
    assert torch.equal(alone.probabilities, alone.model_probabilities)
    assert torch.equal(alone.model_probabilities, prediction.model_probabilities)
    with pytest.raises(ValueError, match="prompt is empty"):
        predict(lm, store, "", MIXTURE)


def test_a_corrected_record_changes_the_answer(lm, store, texts):
    read_all(lm, store, texts[0])
    ids = encode(lm.tokenizer, texts[0].text).ids
    prompt = lm.tokenizer.decode(ids[:5].tolist())
    sure = Mixture(temperature=0.01, weight=0.95)
    before = predict(lm, store, prompt, sure)
    assert int(before.probabilities.argmax()) == int(ids[5])
    wanted = int(ids[5]) ^ 1
    store.update(before.hits.ids[0, :1], values=torch.tensor([wanted], dtype=torch.int32))
    assert int(predict(lm, store, prompt, sure).probabilities.argmax()) == wanted


def test_an_excerpt_is_the_text_around_a_record(lm, store, texts):
    read_all(lm, store, texts[0])
    left, token, right = excerpt(lm, store, 30, before=10, after=5)
    ids = encode(lm.tokenizer, texts[0].text).ids[20:36]
    assert left + token + right == lm.tokenizer.decode(ids.tolist())
    assert token == lm.tokenizer.decode(ids[10:11].tolist())
    assert excerpt(lm, store, 0, before=10, after=0)[0] == ""


def test_a_document_that_changed_is_not_taken_for_the_old_one(lm, store, texts):
    read_all(lm, store, texts[0])
    records = store.count()
    with pytest.raises(ChangedDocumentError, match="forget it first"):
        read_all(lm, store, Document(texts[0].name, texts[1].text))
    assert store.count() == records


def test_the_store_of_another_model_is_refused(lm, store, texts):
    read_all(lm, store, texts[0])
    other = language_model(
        hybrid(lm.model.vocabulary_size, "attention attention", width=16, heads=2), lm.tokenizer
    )
    with pytest.raises(OtherModelError, match=f"{lm.fingerprint[:12]}.*{other.fingerprint[:12]}"):
        retrieve(other, store, "text")
    with pytest.raises(OtherModelError, match="holds the keys of model"):
        read_all(other, store, texts[1])


@pytest.mark.parametrize(("metric", "width", "shape"), [("cosine", 16, ()), ("euclidean", 8, ())])
def test_a_store_that_cannot_be_the_models_is_refused(lm, metric, width, shape):
    with open_store(":memory:", metric=metric) as store:
        store.write(torch.randn(1, width), torch.zeros(1, *shape, dtype=torch.int32))
        with pytest.raises(OtherModelError, match="where this model needs 16 by euclidean"):
            check_model(lm, store)
