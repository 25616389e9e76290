"""The twenty bAbI tasks: questions about short stories, with the sentences that support each answer.

Weston, Bordes, Chopra et al. 2015, "Towards AI-Complete Question Answering", version 1.2 in English, with
1,000 or 10,000 questions to learn from in each task and the same 1,000 to be tested on. What papers report
depends on four choices that must be named: 1k or 10k, joint or single tasks, sentences or words
(`tasks.babi_words`) as inputs, and the best of several runs or their mean.
"""

import hashlib
import random
import tarfile
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mnemos.tasks.files import data_folder, fetch

TASKS = range(1, 21)
ARCHIVES = ("babi/tasks_1-20_v1-2_en.tar.gz", "babi/tasks_1-20_v1-2.tar.gz")  # below a data folder
ADDRESS = "http://www.thespermwhale.com/jaseweston/babi/tasks_1-20_v1-2.tar.gz"
# SHA-256 of the folder's files one after the other, by name, since the same files come in several archives.
SHA256 = {
    "en": "8e790dd2c13bf05e71b00d17df28ad2ce798095f31cc162ef93f13585bd4d0f9",
    "en-10k": "f8619930ed84849f763e1c8653be5d904f12cbe6f9ec84f2d2c8ad06f70f9988",
}
MAY_LACK = ("en-10k", 3, "train")  # absent from the smaller archive, and so not in the checksum


class Question(NamedTuple):
    """A question at one point of a story."""

    words: tuple[str, ...]
    answer: str  # several words with commas between them are one answer, as in the papers
    supporting: tuple[
        int, ...
    ]  # positions of the sentences that it follows from, from 0, in the file's order
    after: int  # how many of the story's sentences come before it


class Story(NamedTuple):
    """Sentences in the order in which they are told, and the questions among them; words in lower case."""

    task: int  # 1 to 20
    sentences: tuple[tuple[str, ...], ...]
    questions: tuple[Question, ...]


class Vocabulary:
    """Words by number, from 1; 0 is where there is none.

    Args:
        words: any order, repeats allowed; kept in alphabetical order.
    """

    def __init__(self, words: Iterable[str]) -> None:
        self.words = tuple(sorted(set(words)))

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words, 1)}

    def __len__(self) -> int:
        """How many numbers there are, that of no word included."""
        return len(self.words) + 1

    def __contains__(self, word: str) -> bool:
        return word in self._numbers

    def numbers(self, words: Sequence[str]) -> list[int]:
        """The words' numbers.

        Raises:
            LookupError: unknown words, which it names.
        """
        unknown = [word for word in dict.fromkeys(words) if word not in self]
        if unknown:
            raise LookupError(f"unknown words: {', '.join(unknown)}")
        return [self._numbers[word] for word in words]


class Questions(NamedTuple):
    """Questions with the sentences before them, as numbers of a vocabulary; 0 fills up."""

    sentences: Int[Tensor, "batch slots words"]  # in the order of time, the last ones if there are too many
    told: Int[Tensor, " batch"]  # how many sentences there are
    questions: Int[Tensor, "batch words"]
    answers: Int[Tensor, " batch"]  # -1 where the vocabulary lacks the answer, which is then always wrong
    supporting: Bool[Tensor, "batch slots"]
    tasks: Int[Tensor, " batch"]

    def pick(self, rows: Tensor) -> "Questions":
        """Some of them: positions, or a mask."""
        return Questions(*(tensor[rows] for tensor in self))


def babi(
    tasks: Iterable[int] = TASKS,
    part: str = "train",
    *,
    size: str = "en",
    root: str | Path | None = None,
    download: bool = False,
) -> list[Story]:
    """The stories of some tasks, task after task.

    Args:
        tasks: numbers, 1 to 20.
        part: "train" or "test".
        size: "en" for 1,000 questions to learn from in each task, "en-10k" for 10,000.
        root: a data folder that holds one of `ARCHIVES`; the environment's MNEMOS_DATA if None, and with
            `download` else ~/.cache/mnemos.
        download: whether to fetch the archive from its authors' address where the folder lacks it.

    Raises:
        ValueError: there is no such task, part or size, or the archive's content is another one.
        FileNotFoundError: no folder, no archive, or a file that the archive lacks.
    """
    chosen = list(tasks)
    wrong = [task for task in chosen if task not in TASKS]
    if wrong or part not in ("train", "test") or size not in SHA256:
        raise ValueError(
            "tasks must be 1 to 20, part 'train' or 'test', size 'en' or 'en-10k': "
            f"got {chosen}, {part!r}, {size!r}"
        )
    texts = _texts(_archive(size, root, download), size)
    missing = [task for task in chosen if (task, part) not in texts]
    if missing:
        raise FileNotFoundError(f"the archive of bAbI lacks task {missing[0]}, {part}, of {size}")
    return [story for task in chosen for story in parse(texts[task, part], task)]


def parse(text: str, task: int) -> list[Story]:
    """The stories of a file: numbered lines, which begin again at 1 with every story.

    A question has tabs before its answer and before the numbers of the lines that support it.
    """
    stories: list[Story] = []
    sentences: list[tuple[str, ...]] = []
    questions: list[Question] = []
    position: dict[int, int] = {}  # of the sentence in a line

    def end() -> None:
        if questions:
            stories.append(Story(task, tuple(sentences), tuple(questions)))

    for line in text.lower().splitlines():
        number, _, rest = line.partition(" ")
        if number == "1":
            end()
            sentences, questions, position = [], [], {}
        if "\t" in rest:
            asked, answer, lines = rest.split("\t")
            supporting = tuple(position[int(one)] for one in lines.split())
            questions.append(Question(split_words(asked), answer.strip(), supporting, len(sentences)))
        else:
            position[int(number)] = len(sentences)
            sentences.append(split_words(rest))
    end()
    return stories


def split_words(sentence: str) -> tuple[str, ...]:
    """The words of a sentence or question in lower case, without the mark at its end."""
    return tuple(sentence.lower().strip().rstrip(".?!").split())


def hold_out(stories: Sequence[Story], share: float = 0.1, seed: int = 0) -> tuple[list[Story], list[Story]]:
    """(Stories to learn from, stories to choose by): that share of each task's stories, whole, at random."""
    learn: list[Story] = []
    choose: list[Story] = []
    for task in sorted({story.task for story in stories}):
        known = [story for story in stories if story.task == task]
        held = set(random.Random(seed * 100 + task).sample(range(len(known)), round(share * len(known))))
        learn += [story for place, story in enumerate(known) if place not in held]
        choose += [story for place, story in enumerate(known) if place in held]
    return learn, choose


def vocabulary(stories: Iterable[Story]) -> Vocabulary:
    """All words of sentences and questions, and the answers; take it from what is learned from alone."""
    words: set[str] = set()
    for story in stories:
        words.update(word for sentence in story.sentences for word in sentence)
        words.update(word for question in story.questions for word in (*question.words, question.answer))
    return Vocabulary(words)


def encode(
    stories: Sequence[Story], vocabulary: Vocabulary, slots: int = 50, words: int | None = None
) -> Questions:
    """Every question of the stories with the sentences before it, the last `slots` of them.

    Args:
        words: the width of sentences and questions; that of the longest if None.

    Raises:
        LookupError: words of sentences or questions that the vocabulary lacks.
    """
    asked = [(story, question) for story in stories for question in story.questions]
    texts = dict.fromkeys(text for story in stories for text in story.sentences)
    texts |= dict.fromkeys(question.words for _, question in asked)
    width = max(map(len, texts)) if words is None else words
    row_of = {text: row for row, text in enumerate(texts, 1)}  # row 0 has no word
    numbers = [[0] * width, *(vocabulary.numbers(text) + [0] * (width - len(text)) for text in texts)]
    table = torch.tensor(numbers)
    longest = max(min(question.after, slots) for _, question in asked)
    told, places, supporting = [], [], []
    for story, question in asked:
        first = max(0, question.after - slots)
        told.append(question.after - first)
        rows = [row_of[text] for text in story.sentences[first : question.after]]
        places.append(rows + [0] * (longest - len(rows)))
        supporting.append([slot + first in question.supporting for slot in range(longest)])
    return Questions(
        table[torch.tensor(places)],
        torch.tensor(told),
        table[torch.tensor([row_of[question.words] for _, question in asked])],
        torch.tensor([_answer(question.answer, vocabulary) for _, question in asked]),
        torch.tensor(supporting),
        torch.tensor([story.task for story, _ in asked]),
    )


def _answer(answer: str, vocabulary: Vocabulary) -> int:
    return vocabulary.numbers([answer])[0] if answer in vocabulary else -1


def _archive(size: str, root: str | Path | None, download: bool) -> Path:
    folder = data_folder(ARCHIVES[0], ADDRESS, root, download=download)
    for name in ARCHIVES:
        if (folder / name).is_file():
            return folder / name
    archive = folder / ARCHIVES[1]
    if not download:
        raise FileNotFoundError(f"{archive}: no such file; it is at {ADDRESS}")
    fetch(ADDRESS, archive, lambda part: _check(part, size))
    return archive


def _check(archive: Path, size: str) -> None:
    _texts(archive, size)


def _texts(archive: Path, size: str) -> dict[tuple[int, str], str]:
    """The files of one size by task and part, once their checksum was found right."""
    contents: dict[str, bytes] = {}
    with tarfile.open(archive) as content:
        for member in content:
            folder, _, name = member.name.rpartition("/")
            if folder.endswith(f"/{size}") and name.startswith("qa") and name.endswith(".txt"):
                file = content.extractfile(member)
                contents[name] = file.read() if file else b""
    digest, texts = hashlib.sha256(), {}
    for name in sorted(contents):
        task, part = int(name[2:].partition("_")[0]), name.removesuffix(".txt").rpartition("_")[2]
        texts[task, part] = contents[name].decode()
        if (size, task, part) != MAY_LACK:
            digest.update(contents[name])
    if digest.hexdigest() != SHA256[size]:
        raise ValueError(
            f"{archive}: not the bAbI 1.2 that is expected (the SHA-256 of its {size} files differs)"
        )
    return texts
