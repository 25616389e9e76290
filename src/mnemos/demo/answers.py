"""Step 4: a new process recalls, and every record that it shows is looked up in the file it names."""

import random
import re
from typing import Any

import mnemos
from mnemos.demo import texts
from mnemos.demo.crash import answer_of
from mnemos.demo.plan import Plan
from mnemos.demo.results import Recalled
from mnemos.models.checkpoint import load_model
from mnemos.models.recollection import Recollection, recall
from mnemos.models.tuning import load_mixture
from mnemos.progress import Advance
from mnemos.tasks.text import Document

PHRASE_LENGTH = 120  # letters, about
TRUTH_LENGTH = 30  # letters
SHOWN = 3  # records to a phrase


def remember(plan: Plan, advance: Advance) -> Recalled:
    """Step 4: phrases from what was read, answered by this process and by a new one for each."""
    model, b = load_model(plan.model), texts.load(plan.folder).b
    mixture = load_mixture(plan.model, model.model.width)
    chosen = phrases(b.train, plan.phrases, plan.seed)
    answers, same, traced = [], True, 0
    documents = {document.name: document.text for document in b.train}
    for row, (phrase, truth) in enumerate(chosen):
        advance(row / len(chosen), "asking a new process")
        with mnemos.open(plan.memory) as store:
            here = recall(model, store, phrase, mixture, show=SHOWN)
        there = answer_of("recall", plan.model, plan.memory, phrase, "--show", str(SHOWN))
        same &= _essence(here) == _essence(there)
        traced += sum(stands_in(documents, answer) for answer in there["answers"])
        answers.append({**there, "truth": truth})
    return Recalled(answers, same, traced, sum(len(answer["answers"]) for answer in answers))


def phrases(documents: list[Document], count: int, seed: int) -> list[tuple[str, str]]:
    """Random stretches of documents, cut off before a word; and how the document goes on there."""
    chance = random.Random(seed)
    long = [document for document in documents if len(document.text) > 4 * PHRASE_LENGTH]
    found = []
    for _ in range(count):
        text = chance.choice(long).text
        middle = chance.randrange(2 * PHRASE_LENGTH, len(text) - PHRASE_LENGTH)
        word = re.compile(r"(?<=\S) (?=[A-Za-z]{3})").search(text, middle)
        end = word.start() if word else middle
        begin = text.find("\n", end - PHRASE_LENGTH, end - PHRASE_LENGTH // 3) + 1 or end - PHRASE_LENGTH
        found.append((text[begin:end], text[end:].partition("\n")[0][:TRUTH_LENGTH]))
    return found


def _essence(found: Recollection | dict[str, Any]) -> list[Any]:
    """What must be the same in every process: all but age and use."""
    facts = found if isinstance(found, dict) else found._asdict()
    answers = [one if isinstance(one, dict) else one._asdict() for one in facts["answers"]]
    told = [[one[name] for name in ("id", "token", "distance", "share", "source", "line")] for one in answers]
    return [facts["phrase"], facts["continuation"], facts["weight"], told]


def stands_in(documents: dict[str, str], answer: dict[str, Any]) -> bool:
    """Whether a record's text stands in the document that it names, with its token on the line it names."""
    text = documents.get(answer["source"], "")
    told = answer["before"] + answer["token"] + answer["after"]
    begin = text.find(told)
    while begin >= 0:
        place = begin + len(answer["before"])
        if text.count("\n", 0, place) + 1 == answer["line"]:
            return True
        begin = text.find(told, begin + 1)
    return False
