"""`mnemos ask`, as somebody would use it: a story told in one process, and asked about in another."""

import json
import subprocess
import sys

import pytest
import torch

from mnemos.models.answering import AnswerTraining, train_answers
from mnemos.models.end_to_end import MemN2N
from mnemos.models.story import load_answerer, reply, save_answerer, tell
from mnemos.stores import StoreError, open
from mnemos.tasks.babi import encode, vocabulary
from mnemos.tasks.walks import walks


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder with a network that knows who is where."""
    torch.manual_seed(0)
    learn = walks(1000)
    words = vocabulary(learn)
    learned = encode(learn, words)
    network = MemN2N(len(words), width=20, slots=8, hops=2)
    errors = train_answers(network, learned, learned, AnswerTraining(epochs=15, linear_epochs=3))
    assert errors[-1] < 0.02
    folder = tmp_path_factory.mktemp("run")
    save_answerer(folder, network, words)
    return folder


def ask(run, *arguments, said="", code=0):
    """`mnemos ask` in a process of its own."""
    command = [sys.executable, "-m", "mnemos", "ask", str(run), *arguments]
    done = subprocess.run(command, input=said, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def test_a_story_told_in_one_process_is_answered_from_in_another(run):
    assert "Told 3 sentences." in ask(
        run, "--forget", "Mary went to the kitchen.", "John went to the hall. Sue went to the office."
    )
    assert ask(run, "Where is Mary?").startswith("kitchen")
    assert "Told 1 sentence." in ask(run, said="Mary went to the garden.\n")
    facts = json.loads(ask(run, "--json", said="Where is Mary?\nWhere is Sue?\n"))
    assert [found["answer"] for found in facts["replies"]] == ["garden", "office"]
    first = facts["replies"][0]
    assert first["sentences"][-1] == "Mary went to the garden."
    assert len(first["weights"]) == 2
    assert max(zip(first["weights"][0], first["sentences"], strict=True))[1] == "Mary went to the garden."


def test_what_cannot_be_understood_is_named_and_nothing_is_told(run):
    ask(run, "--forget", "Mary went to the kitchen.")
    said = ask(run, "John went to the hall.", "Bob flew to the moon.", code=1)
    assert "unknown words: bob, flew, moon" in said
    facts = json.loads(ask(run, "Where is Mary?", "--json"))
    assert facts["replies"][0]["sentences"] == ["Mary went to the kitchen."]
    assert "nothing was told yet" in ask(run, "--forget", "Where is Mary?", code=1)
    assert "holds no model" in ask(run.parent / "nothing", "Where is Mary?", code=1)


def test_only_the_last_sentences_are_held_and_another_network_is_refused(run, tmp_path):
    answerer = load_answerer(run)
    with open(tmp_path / "story", fingerprint=answerer.fingerprint) as story:
        for _ in range(9):
            tell(answerer, story, "John went to the hall.")
        tell(answerer, story, "Mary went to the kitchen.")
        found = reply(answerer, story, "where is mary")
    assert found.answer == "kitchen"
    assert 0.5 < found.probability <= 1
    assert len(found.sentences) == len(found.weights[0]) == 8
    with pytest.raises(StoreError):
        open(tmp_path / "story", fingerprint="another")
