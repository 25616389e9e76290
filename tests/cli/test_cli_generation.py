"""`mnemos generate`, and models of named layers from the command line."""

from invoking import PHRASE, facts_of, mnemos_


def test_a_phrase_is_gone_on_from(model):
    facts = facts_of("generate", model, PHRASE, "--tokens", 5, "--temperature", 0)
    assert facts["phrase"] == PHRASE
    assert facts["tokens"] == 5
    assert (
        facts["continuation"]
        == facts_of("generate", model, PHRASE, "--tokens", 5, "--temperature", 0)["continuation"]
    )
    assert facts["continuation"] in mnemos_("generate", model, PHRASE, "--tokens", 5, "--temperature", 0).out


def test_draws_depend_on_the_seed(model):
    said = {
        facts_of("generate", model, "--tokens", 30, "--temperature", 2, "--seed", seed)["continuation"]
        for seed in (1, 2, 1)
    }
    assert len(said) == 2


def test_wrong_wishes_are_errors(model):
    assert "top_p must be" in mnemos_("generate", model, PHRASE, "--top-p", 0).err


def test_layers_have_names(texts, tmp_path):
    given = ("--steps", 2, "--vocabulary", 260, "--width", 16)
    mixed = facts_of("train", "text", tmp_path / "mixed", texts, *given, "--layers", "gated-delta attention")
    plain = facts_of("train", "text", tmp_path / "plain", texts, *given, "--layers", 2)
    assert mixed["parameters"] > plain["parameters"]
    assert facts_of("generate", tmp_path / "mixed", "--tokens", 3)["tokens"] == 3
    wrong = mnemos_("train", "text", tmp_path / "wrong", texts, *given, "--layers", "delta")
    assert wrong.code == 1
    assert "layers must be of attention" in wrong.err
