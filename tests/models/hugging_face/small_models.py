"""Random models of every architecture, small enough for any test, and what they read."""

import torch
import transformers

import mnemos

COMMON = {
    "vocab_size": 37,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GATED = COMMON | {"intermediate_size": 48}
GROUPED = GATED | {"num_key_value_heads": 2, "head_dim": 8}
MIXED = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
ARCHITECTURES = {
    "Llama": lambda: transformers.LlamaConfig(**GROUPED),
    "Qwen3": lambda: transformers.Qwen3Config(**GROUPED),
    "Mistral": lambda: transformers.MistralConfig(**GROUPED, sliding_window=8),
    "Gemma3": lambda: transformers.Gemma3TextConfig(**GROUPED, **MIXED),
    "GPT-2": lambda: transformers.GPT2Config(**COMMON),
    "GPT-NeoX": lambda: transformers.GPTNeoXConfig(**GATED, rotary_pct=0.5),
    "Phi-3": lambda: transformers.Phi3Config(**GATED, num_key_value_heads=2),
}


def small(name):
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(ARCHITECTURES[name]()).eval()


def tokens(batch=2, time=10, seed=0):
    return torch.randint(3, 37, (batch, time), generator=torch.Generator().manual_seed(seed))


def memory(size=32):
    return mnemos.DeltaRule(size, heads=2, key_size=8, value_size=8)
