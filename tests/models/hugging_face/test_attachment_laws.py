"""All laws of attachment for all architectures, and where transformers is touched."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from small_models import ARCHITECTURES, small

import mnemos
from mnemos.models.hugging_face import laws

PAGE = Path(__file__).parents[3] / "docs" / "attach.md"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_table_in_the_docs_is_what_the_laws_find(name):
    found = laws.examine(small(name))
    assert set(found.values()) == {"yes"}
    page = PAGE.read_text(encoding="utf-8")
    assert f"| architecture | {' | '.join(found)} |" in page
    assert f"| {name} | {' | '.join(found.values())} |" in page


def test_a_law_that_is_broken_is_told():
    model = small("GPT-2")
    model.config.reorder_and_upcast_attn = True
    for block in model.transformer.h:
        block.attn.reorder_and_upcast_attn = True
    assert "goes around" in laws.examine(model, ["greedy"])["greedy"]
    assert not hasattr(model, "mnemos_attachment")


def test_without_transformers_the_error_names_the_extra():
    program = "import sys; sys.modules['transformers'] = None; import mnemos; mnemos.attach"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert 'pip install "mnemos[hf]"' in run.stderr


def test_only_one_file_knows_transformers():
    source = Path(mnemos.__file__).parent
    pattern = re.compile(r"^\s*(from|import) (transformers|peft)", re.MULTILINE)
    users = [file.name for file in source.rglob("*.py") if pattern.search(file.read_text())]
    assert sorted(users) == ["laws.py", "sleep.py", "surface.py"]  # laws.py and sleep.py: peft
