"""The report as one HTML file: every number in it comes from the measurements that it is given."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from mnemos.demo.results import Evicted, Forgotten, Learned, Recalled, Results, Resumed, Slept, Trained
from mnemos.report import figures


def write(results: Results, path: Path) -> None:
    """Writes the page anew; a reader never sees half of it."""
    fresh = path.with_suffix(".new")
    fresh.write_text(page(results), encoding="utf-8")
    os.replace(fresh, path)


def page(results: Results) -> str:
    """The whole page. A step that has not run is left out."""
    style = files("mnemos.report").joinpath("style.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>mnemos: what a network remembered</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n<main>\n{''.join(_parts(results))}</main>\n</body>\n</html>\n"
    )


def _parts(results: Results) -> Iterator[str]:
    yield _head(results)
    sections: dict[str, Callable[[Any], str]] = {
        "learned": _learned,
        "resumed": _resumed,
        "recalled": _recalled,
        "forgotten": _forgotten,
        "evicted": _evicted,
        "slept": _slept,
        "trained": _trained,
    }
    for name, section in sections.items():
        if (step := getattr(results, name)) is not None:
            yield section(step)
    yield (
        f'<footer class="made"><p>Made by <code>{escape(results.command)}</code>, one run, seed '
        f"{results.seed}. The measurements are in <code>results.json</code> beside this page.</p></footer>\n"
    )


def _head(results: Results) -> str:
    rows = [
        (
            escape(title),
            f'{escape(verdict.measured)}<span class="expected">expected: {escape(verdict.expected)}</span>',
            '<span class="pass">passed</span>' if verdict.passed else '<span class="fail">failed</span>',
        )
        for title, verdict in results.verdicts()
        if verdict is not None
    ]
    total = sum(results.seconds.values())
    return (
        "<h1>What a network remembered</h1>\n"
        '<p class="lead">A small language model was trained on one kind of text (A), then read another '
        "(B) into a durable memory, without changing a weight. It was killed, came back, recalled, was "
        "corrected, and forgot.</p>\n"
        f'<p class="made"><code>{escape(results.command)}</code> &middot; seed {results.seed} &middot; '
        f"{escape(results.date)} &middot; {total / 60:.1f} minutes<br>{escape(results.machine)}</p>\n"
        f'<table class="results" style="margin-top:22px">{_rows(rows)}</table>\n'
    )


def _learned(step: Learned) -> str:
    change = step.a_with / step.a_without - 1
    old = "does not rise" if change <= 0 else f"rises by {change:.1%}"
    return (
        f"<h2>Perplexity on new text falls by {step.fall:.0%}, on the old it {old}</h2>\n"
        f"<p>{step.files} documents of B, {step.bytes / 1e3:,.0f} thousand bytes, became "
        f"{step.records:,} records in {step.seconds:.0f} seconds: under what the model saw, the token "
        "that followed. For comparison, the same model was fine-tuned on the same text for "
        f"{step.tuning_seconds:.0f} seconds ({step.tuning_steps} steps).</p>\n"
        + _figure(
            figures.domains(step),
            f"Perplexity on text that nobody had seen. With memory, B falls from {step.b_without:.1f} to "
            f"{step.b_with:.1f} and A goes from {step.a_without:.1f} to {step.a_with:.1f}. Fine-tuning "
            f"reaches {step.b_tuned:.1f} on B and moves A to {step.a_tuned:.1f}. "
            f"{step.duplicates:,} of the {step.lines:,} lines of B's unseen text stand somewhere in what "
            "was read.",
        )
        + _figure(
            figures.along_the_text(step),
            "The same along the unseen text of B, document after document, averaged over a moving window. "
            "The shaded gap is what the memory is worth.",
        )
        + _figure(
            figures.store_size(step),
            "Against the size of the memory, when only the first records are kept. Dotted: the model alone.",
        )
        + _figure(
            figures.growth(step),
            f"As reading went. The memory grew to {step.disk / 1e6:.1f} MB on disk. Right: what the text "
            "of B cost just before it was written, so that nothing is predicted from itself; a sample of it.",
        )
    )


def _resumed(step: Resumed) -> str:
    kept = "the same" if step.perplexity == step.uninterrupted else "another"
    return (
        "<h2>Killed while reading, it went on where it had stopped</h2>\n"
        f"<p>A second process read the same text and was killed with SIGKILL at {step.killed_at:,} of "
        f"{step.records:,} acknowledged records. Started again with the same command, it found "
        f"{step.resumed_at:,} records and read the rest. Compared bit for bit with the uninterrupted run, "
        f"{step.differing} records differ, and the perplexity on unseen text is {kept}: "
        f"{step.perplexity:.6f} and {step.uninterrupted:.6f}.</p>\n"
    )


def _recalled(step: Recalled) -> str:
    return (
        "<h2>A new process recalls, and says from where</h2>\n"
        f"<p>Phrases from the text of B, cut off. The records nearest to each one answer; "
        f"{step.traced} of the {step.shown} shown stand word for word in the named file at the named "
        "line.</p>\n" + "".join(_answer(answer) for answer in step.answers)
    )


def _answer(answer: dict[str, Any]) -> str:
    rows = [
        (
            f'<span class="snippet">{_flat(record["before"])}<mark>{_flat(record["token"])}</mark>'
            f"{_flat(record['after'])}</span>",
            f"{escape(short(record['source']))}<br>line {record['line']}, token {record['position']:,}",
            f"{record['distance']:.2f}",
            f"{record['age'] / 60:.1f} min",
            f"{record['times_read']}",
        )
        for record in answer["answers"]
    ]
    heads = ("what the record remembers", "from", "distance", "age", "reads")
    return (
        '<div class="answer">'
        f'<p class="phrase">{_compact(answer["phrase"])}<mark>{_flat(answer["continuation"])}</mark></p>'
        f'<p class="made">The text itself goes on: <code>{escape(answer["truth"])}</code></p>'
        f"<table>{_rows(rows, heads, numbers=(2, 3, 4))}</table></div>\n"
    )


def _forgotten(step: Forgotten) -> str:
    rows = [
        ("perplexity on it, from its own records", f"{step.alone_before:.2f}", f"{step.alone_after:.2f}"),
        ("perplexity on it, from the whole memory", f"{step.whole_before:.2f}", f"{step.whole_after:.2f}"),
        (
            "times that a record of it was among the nearest",
            f"{step.returned_before:,}",
            f"{step.returned_after:,}",
        ),
        (
            f"of {step.keys_sought:,} keys of it, found in the raw bytes of the files",
            f"{step.keys_before:,}",
            f"{step.keys_after:,}",
        ),
    ]
    return (
        "<h2>Made to forget, and corrected</h2>\n"
        f"<p>In a copy of the memory, the document <code>{escape(short(step.document))}</code> with its "
        f"{step.records:,} records was forgotten. That freed {step.bytes_freed / 1e6:.1f} MB.</p>\n"
        f"<table>{_rows(rows, ('', 'before', 'after'), numbers=(1, 2))}</table>\n"
        f'<figcaption style="margin-top:10px">Without any memory the perplexity on it is '
        f"{step.without:.2f}; with a memory that never read it, {step.never:.2f}. Keys that another document "
        "has too are not counted: they rightly stay.</figcaption>\n"
        "<p>Then the memory read a letter, and one fact of it was corrected:</p>\n"
        f'<div class="answer"><p class="phrase">{escape(step.phrase)}<del>{escape(step.answer_before)}</del>'
        f"<mark>{escape(step.answer_after)}</mark></p></div>\n"
    )


def _evicted(step: Evicted) -> str:
    return (
        "<h2>Half of it let go, by each policy</h2>\n"
        f"<p>Each policy cut a copy of the memory from {step.records:,} records to "
        f"{step.records // 2:,}, after it had been used on other unseen text of B.</p>\n"
        + _figure(
            figures.evictions(step),
            "What each policy cost on unseen text of B. Which one is right depends on what comes next: a "
            "policy that goes by use is as good as past use is a guide.",
        )
    )


def _slept(step: Slept) -> str:
    rows = [
        ("the model, before it read B", f"{step.b_before:.1f}", f"{step.a_before:.1f}"),
        ("the same with its memory", f"{step.b_with:.1f}", ""),
        ("after sleep, without any memory", f"{step.b_after:.1f}", f"{step.a_after:.1f}"),
    ]
    return (
        "<h2>Slept over, and not needed any more</h2>\n"
        f"<p>For {step.seconds:.0f} seconds what the memory held was replayed into the weights of a new "
        "model, put together from its records alone and interleaved with text of A. That model has no "
        f"memory, and {step.kept:.0%} of what the memory saved on unseen text of B.</p>\n"
        f"<table>{_rows(rows, ('perplexity on unseen text', 'B', 'A'), numbers=(1, 2))}</table>\n"
    )


def _trained(step: Trained) -> str:
    return (
        "<h2>The model</h2>\n"
        f"<p>A transformer of {step.parameters:,} parameters over {step.vocabulary:,} tokens, trained for "
        f"{step.seconds:.0f} seconds and {step.steps:,} steps on {step.files} documents of A "
        f"({step.bytes / 1e3:,.0f} thousand bytes). On unseen text of A its perplexity is "
        f"{step.perplexity:.1f}; a model that knew only how frequent each token is would have "
        f"{step.unigram:.1f}.</p>\n" + _figure(figures.training(step), "Perplexity on the training text.")
    )


def _figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>\n"


def _rows(rows: Sequence[Sequence[str]], heads: Sequence[str] = (), numbers: Sequence[int] = ()) -> str:
    """Table rows of cells that are HTML already."""

    def row(cells: Sequence[str], tag: str) -> str:
        marks = [' class="number"' if i in numbers else "" for i in range(len(cells))]
        return "".join(f"<{tag}{m}>{cell}</{tag}>" for m, cell in zip(marks, cells, strict=True))

    lines = [row(heads, "th")] if heads else []
    return "".join(f"<tr>{line}</tr>" for line in [*lines, *(row(cells, "td") for cells in rows)])


def _compact(text: str) -> str:
    """Text of several lines without its blank ones."""
    return escape(re.sub(r"\n\s*\n", "\n", text).lstrip("\n"))


def _flat(text: str) -> str:
    """Text for one line: a line's end and the indentation after it become a sign."""
    return escape(re.sub(r"\s*\n\s*", " ⏎ ", text))


def short(source: str) -> str:
    """A document of the demo without the folders that the demo put it in."""
    return source.rpartition("/train/")[2]
