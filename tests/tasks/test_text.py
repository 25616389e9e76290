import math
import os
import zipfile

import pytest
import torch

from mnemos.tasks.text import (
    Document,
    bits_per_byte,
    encode,
    novels,
    python_reference,
    read_documents,
    repeated_lines,
    split_documents,
    standard_library,
    train_tokenizer,
)

TEXT = "def naïve(größe):\n    return größe  # 日本語 🙂\n\n\tindented\r\n"


def test_folder_is_read_file_by_file_in_order(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two.txt").write_text("two")
    (tmp_path / "a.txt").write_bytes(TEXT.encode())
    (tmp_path / "c.md").write_text("three")
    (tmp_path / ".hidden").write_bytes(b"\0")
    documents = read_documents([tmp_path])
    assert [document.name for document in documents] == [
        f"{tmp_path}/{name}" for name in ("a.txt", "b/two.txt", "c.md")
    ]
    assert documents[0].text == TEXT
    assert [document.text for document in read_documents([tmp_path], [".md"])] == ["three"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"abc\0def", "NUL bytes"),
        (b"abc\xff\xfe", "byte 3 cannot be decoded"),
    ],
)
def test_what_is_not_text_is_refused(tmp_path, content, message):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_documents([tmp_path / "file"])


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.txt: no such file"):
        read_documents([tmp_path / "nowhere.txt"])
    with pytest.raises(FileNotFoundError, match=r"no file of \.py in this folder"):
        read_documents([tmp_path], [".py"])


def test_split_is_of_whole_documents_and_by_size():
    documents = [Document(str(i), "x" * (100 + 7 * i % 60)) for i in range(50)]
    split = split_documents(documents, valid=0.2, test=0.1, seed=3)
    assert sorted(document for part in split for document in part) == sorted(documents)
    total = sum(len(document.text) for document in documents)
    shares = [sum(len(document.text) for document in part) / total for part in split]
    assert 0.15 < shares[1] <= 0.2
    assert 0.05 < shares[2] <= 0.1
    assert split == split_documents(documents, valid=0.2, test=0.1, seed=3)
    assert split != split_documents(documents, valid=0.2, test=0.1, seed=4)


def test_split_refuses_too_few_documents_and_wrong_shares():
    with pytest.raises(ValueError, match="too few"):
        split_documents([Document("a", "one"), Document("b", "two")])
    with pytest.raises(ValueError, match="below 1 together"):
        split_documents([Document("a", "one")], valid=0.5, test=0.5)


def test_repeated_lines_are_counted():
    train = [Document("a", "one\n  two\nthree")]
    others = [Document("b", "two \n\nfour"), Document("c", "two\nfive")]
    assert repeated_lines(train, others) == (4, 2)


def test_default_domains_need_no_download():
    reference, library = python_reference(), standard_library("email")
    assert len(reference) > 30
    assert sum(len(document.text) for document in reference) > 200_000
    assert len(library) > 15
    assert sum(len(document.text) for document in library) > 200_000
    assert "email/message.py" in {document.name for document in library}
    with pytest.raises(ValueError, match="must be a package"):
        standard_library("no_such_package")


def test_reference_holds_no_topic_twice():
    split = split_documents(python_reference())
    lines, repeated = repeated_lines(split.train, split.test)
    assert repeated < 0.2 * lines


def test_tokenizer_keeps_every_byte():
    tokenizer = train_tokenizer([Document("a", "the cat and the hat\n" * 20)], 300)
    assert 256 < tokenizer.get_vocab_size() <= 300
    for text in (TEXT, "the cat", "", "<|start|>"):
        assert tokenizer.decode(encode(tokenizer, text).ids.tolist()) == text


def test_tokenizer_is_the_same_every_time_and_refuses_too_few_tokens():
    documents = python_reference()[:10]
    first, second = (train_tokenizer(documents, 400).to_str() for _ in range(2))
    assert first == second
    with pytest.raises(ValueError, match="at least 256"):
        train_tokenizer(documents, 100)


def test_every_token_knows_its_line():
    tokenizer = train_tokenizer([Document("a", TEXT)], 256)
    text = "a\nbc\n\nd"
    tokens = encode(tokenizer, text)
    assert tokens.lines.tolist() == [1, 1, 2, 2, 2, 3, 4]
    assert len(encode(tokenizer, "").ids) == 0


def test_bits_per_byte_of_a_uniform_guess_is_eight():
    assert bits_per_byte(5 * math.log(256), "größ") == pytest.approx(8 * 5 / 6)
    assert bits_per_byte(3 * math.log(256), "abc") == pytest.approx(8)


def test_novels_say_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.delenv("MNEMOS_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="MNEMOS_DATA"):
        novels()
    with pytest.raises(FileNotFoundError, match="no such file"):
        novels(tmp_path)
    (tmp_path / "text").mkdir()
    with zipfile.ZipFile(tmp_path / "text" / "english_novels_dev.zip", "w") as archive:
        archive.writestr("novels/splits.json", "{}")
    with pytest.raises(ValueError, match="SHA-256"):
        novels(tmp_path)


@pytest.mark.skipif(not os.environ.get("MNEMOS_DATA"), reason="MNEMOS_DATA names no folder with the novels")
def test_novels_are_whole_books_and_in_one_part_each():
    split = novels()
    assert [len(part) for part in split] == [60, 6, 6]
    assert len({document.name for part in split for document in part}) == 72
    assert min(len(document.text) for part in split for document in part) > 50_000


def test_ids_are_integers_that_an_embedding_takes():
    tokenizer = train_tokenizer([Document("a", TEXT)], 256)
    ids = encode(tokenizer, TEXT).ids
    assert ids.dtype == torch.int64
    assert int(ids.max()) < tokenizer.get_vocab_size()
