import torch

import mnemos
from mnemos.models import hybrid
from mnemos.models.checkpoint import language_model
from mnemos.models.nearest_neighbour import memorize
from mnemos.models.remembered import remembered
from mnemos.tasks.text import Document, encode, train_tokenizer

DOCUMENTS = [Document("long", "the cat sat on the mat. " * 20), Document("short", "a dog and a cat")]


def test_texts_come_back_from_records_alone():
    tokenizer = train_tokenizer(DOCUMENTS, 262)
    torch.manual_seed(0)
    model = hybrid(tokenizer.get_vocab_size() + 1, "attention", width=16, heads=2, context=12)
    whole = language_model(model, tokenizer)
    with mnemos.open(":memory:", metric="euclidean", fingerprint=whole.fingerprint) as store:
        assert remembered(store) == []
        for document in DOCUMENTS:
            list(memorize(whole, store, document))
        list(memorize(whole, store, Document("elsewhere", "the dog"), namespace="other"))
        found = remembered(store)
        assert [source for source, _ in found] == ["long", "short"]
        for document, (_, tokens) in zip(DOCUMENTS, found, strict=True):
            assert torch.equal(tokens, encode(tokenizer, document.text).ids)

        where = {"source": "long", "position": {"in": [3, 4, 40]}}
        store.delete(where=where)  # what was forgotten is not there
        ids = store.ids({"source": "short", "position": 0})
        store.update(ids, values=torch.tensor([7], dtype=torch.int32))  # what was corrected is as corrected
        tokens = encode(tokenizer, DOCUMENTS[0].text).ids
        first, second, third, short = (part for _, part in remembered(store))
        assert torch.equal(first, tokens[:3])
        assert torch.equal(second, tokens[5:40])
        assert torch.equal(third, tokens[41:])
        assert short[0] == 7
        assert len(remembered(store, least=4)) == 3
