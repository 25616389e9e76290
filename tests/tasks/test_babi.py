import io
import os
import tarfile
from pathlib import Path

import pytest
import torch

from mnemos.tasks import sizes_of
from mnemos.tasks.babi import (
    TASKS,
    Question,
    Story,
    Vocabulary,
    babi,
    encode,
    hold_out,
    parse,
    split_words,
    vocabulary,
)
from mnemos.tasks.babi_words import BabiWords, babi_words, word_vocabulary

needs_data = pytest.mark.skipif(
    not os.environ.get("MNEMOS_DATA"), reason="MNEMOS_DATA names no folder with bAbI"
)
TEXT = """1 Mary went to the kitchen.
2 Where is Mary? \tkitchen\t1
3 Mary took the milk.
4 John is afraid of Mary.
5 What does Mary hold?\tmilk,apple\t3 1
1 Cats sleep.
2 Do cats sleep? \tyes\t1
"""


def test_a_file_is_parsed_into_stories_whose_facts_are_positions_of_sentences():
    first, second = parse(TEXT, task=8)
    assert first.task == 8
    assert first.sentences == (
        ("mary", "went", "to", "the", "kitchen"),
        ("mary", "took", "the", "milk"),
        ("john", "is", "afraid", "of", "mary"),
    )
    assert first.questions[0] == Question(("where", "is", "mary"), "kitchen", (0,), 1)
    # Line 3 is the second sentence: questions are counted in the file and not here.
    assert first.questions[1] == Question(("what", "does", "mary", "hold"), "milk,apple", (1, 0), 3)
    assert second == Story(8, (("cats", "sleep"),), (Question(("do", "cats", "sleep"), "yes", (0,), 1),))
    assert split_words(" Where is Mary? ") == ("where", "is", "mary")


def test_vocabulary_has_answers_as_one_word_and_names_what_it_lacks():
    words = vocabulary(parse(TEXT, 8))
    assert "milk,apple" in words
    assert words.numbers(["milk", "yes"]) == [words.words.index("milk") + 1, words.words.index("yes") + 1]
    with pytest.raises(LookupError, match="unknown words: dog, cow"):
        words.numbers(["dog", "milk", "cow", "dog"])
    assert len(Vocabulary(["b", "a", "b"])) == 3


def test_encoded_questions_know_only_what_came_before_them():
    stories = parse(TEXT, 8)
    words = vocabulary(stories)
    questions = encode(stories, words)
    assert questions.told.tolist() == [1, 3, 1]
    assert questions.sentences.shape == (3, 3, 5)
    assert not questions.sentences[0, 1:].any()
    assert questions.sentences[1, 1].tolist() == [*words.numbers(["mary", "took", "the", "milk"]), 0]
    assert questions.supporting.tolist() == [[True, False, False], [True, True, False], [True, False, False]]
    assert questions.answers.tolist() == words.numbers(["kitchen", "milk,apple", "yes"])


def test_the_last_sentences_are_kept_and_unknown_answers_are_never_right():
    stories = parse(TEXT, 8)
    words = Vocabulary(word for word in vocabulary(stories).words if word != "milk,apple")
    questions = encode(stories, words, slots=2, words=6)
    assert questions.sentences.shape == (3, 2, 6)
    assert questions.sentences[1, 0, :2].tolist() == words.numbers(["mary", "took"])
    assert questions.supporting[1].tolist() == [True, False]
    assert questions.answers[1] == -1
    assert questions.pick(questions.answers >= 0).told.tolist() == [1, 1]


def test_whole_stories_are_held_out_of_every_task():
    stories = [story._replace(task=task) for task in (1, 2) for story in parse(TEXT, 1) * 10]
    learn, choose = hold_out(stories, share=0.1, seed=3)
    assert [sum(story.task == task for story in choose) for task in (1, 2)] == [2, 2]
    assert len(learn) == 36
    assert (learn, choose) == hold_out(stories, share=0.1, seed=3)


def test_words_one_by_one_with_a_mark_for_every_word_of_an_answer():
    stories = tuple(parse(TEXT, 8))
    words = word_vocabulary(stories)
    task = BabiWords(stories, words)
    [batch] = task.batches(2)
    said = [[words.words[number - 1] for number in row[row > 0]] for row in batch.inputs.argmax(-1)]
    assert " ".join(said[1]) == (
        "mary went to the kitchen . where is mary ? - mary took the milk . "
        "john is afraid of mary . what does mary hold ? - -"
    )
    assert " ".join(said[0]) == "cats sleep . do cats sleep ? -"
    assert batch.real.sum(1).tolist() == [len(said[0]), len(said[1])]
    assert (batch.inputs.sum(-1) == 1).all()
    answered = [words.words[number - 1] for number in batch.targets[1][batch.scored[1]]]
    assert answered == ["kitchen", "milk", "apple"]


def test_an_answer_of_two_words_is_one_answer():
    stories = tuple(parse(TEXT, 8))
    task = BabiWords(stories, word_vocabulary(stories))
    [batch] = task.batches(2)
    right = torch.nn.functional.one_hot(batch.targets, task.output_size).float()
    assert task.error(right, batch) == 0
    places = batch.scored.nonzero()
    wrong = right.clone()
    wrong[tuple(places[-1])] = 0  # the last word of the last answer
    assert task.wrong(wrong, batch) == (1, 3)
    wrong[tuple(places[-2])] = 0
    assert task.wrong(wrong, batch) == (1, 3)
    wrong[tuple(places[-3])] = 0
    assert task.wrong(wrong, batch) == (2, 3)
    assert task.loss(20 * right, batch) < 1e-4


def test_stories_that_are_too_long_are_left_out():
    stories = tuple(parse(TEXT, 8))
    task = BabiWords(stories, word_vocabulary(stories), longest=10)
    assert task.batch(5, torch.Generator().manual_seed(0)).inputs.shape == (5, 8, task.input_size)
    with pytest.raises(ValueError, match="leaves out every story"):
        BabiWords(stories, word_vocabulary(stories), longest=3).batch(1, torch.Generator())


def test_what_cannot_be_is_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"1 to 20.*\[0, 3\]"):
        babi([0, 3])
    with pytest.raises(ValueError, match="'valid'"):
        babi([1], "valid")
    monkeypatch.delenv("MNEMOS_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="MNEMOS_DATA"):
        babi()
    with pytest.raises(FileNotFoundError, match="it is at"):
        babi(root=tmp_path)
    (tmp_path / "babi").mkdir()
    with tarfile.open(tmp_path / "babi" / "tasks_1-20_v1-2.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("tasks_1-20_v1-2/en/qa1_single-supporting-fact_train.txt")
        member.size = len(TEXT)
        archive.addfile(member, io.BytesIO(TEXT.encode()))
    with pytest.raises(ValueError, match="SHA-256"):
        babi(root=tmp_path)
    source = (tmp_path / "babi/tasks_1-20_v1-2.tar.gz").replace(tmp_path / "source")
    monkeypatch.setattr("mnemos.tasks.babi.ADDRESS", source.as_uri())
    with pytest.raises(ValueError, match="SHA-256"):
        babi(root=tmp_path, download=True)
    assert not any((tmp_path / "babi").iterdir())


@needs_data
def test_all_tasks_are_there_with_a_thousand_questions_each():
    train, test = babi(), babi(part="test")
    for stories in (train, test):
        counts = [sum(len(story.questions) for story in stories if story.task == task) for task in TASKS]
        assert counts == [1000] * 20
    assert [sum(story.task == task for story in train) for task in (1, 4, 15, 18, 20)] == [
        200,
        1000,
        250,
        198,
        94,
    ]
    assert train[0].sentences[0] == ("mary", "moved", "to", "the", "bathroom")
    assert train[0].questions[0] == Question(("where", "is", "mary"), "bathroom", (0,), 2)
    [path] = [story for story in train if story.task == 19][:1]
    assert path.questions[0].answer == "s,e" or "," in path.questions[0].answer
    words = vocabulary(train)
    assert {word for story in test for sentence in story.sentences for word in sentence} <= set(words.words)
    unknown = {q.answer for story in test for q in story.questions} - set(words.words)
    assert unknown == {"football,apple,milk"}  # asked for in the test of task 8 alone
    assert len(word_vocabulary(train)) == 160  # no word, 156 words and three marks, as in Graves et al. 2016


@needs_data
def test_the_archive_is_fetched_where_it_is_not_there(tmp_path, monkeypatch):
    [source] = Path(os.environ["MNEMOS_DATA"]).glob("babi/*.tar.gz")
    monkeypatch.setattr("mnemos.tasks.babi.ADDRESS", source.as_uri())
    assert babi([1], root=tmp_path, download=True) == babi([1])


@needs_data
def test_ten_thousand_have_ten_times_the_questions_and_the_same_test():
    assert sum(len(story.questions) for story in babi([1, 16], size="en-10k")) == 20_000
    assert babi([1], "test", size="en-10k") == babi([1], "test")


@needs_data
def test_stories_are_held_out_to_judge_by() -> None:
    task = babi_words(tasks=(1, 15))
    unseen = task.unseen()
    assert len(unseen.stories) == round(0.1 * 200) + round(0.1 * 250)
    assert not set(unseen.stories) & set(task.stories)
    assert unseen.unseen() is unseen
    assert unseen.input_size == task.input_size
    assert sizes_of("babi") == {"tasks", "size", "longest", "seed"}
