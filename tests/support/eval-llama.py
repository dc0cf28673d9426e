# Usage: eval-llama.py PAGE FOLDER. Makes a Llama with random weights and computes it in numpy as
# Hugging Face does. The code in PAGE, which is docs/checkpoints.md, writes the weights to FOLDER.
# Tokens are written beside them, and the cross-entropy over these tokens is printed.
import re
import sys

import numpy as np
from safetensors.numpy import save_file

page, folder = sys.argv[1:]
vocabulary, width, heads, key_heads, hidden, blocks, length = 64, 32, 4, 2, 48, 3, 16
head = width // heads
random = np.random.default_rng(0)
llama = {
    "model.embed_tokens.weight": random.normal(0, 0.5, (vocabulary, width)),
    "model.norm.weight": random.normal(1, 0.2, width),
    "lm_head.weight": random.normal(0, 0.3, (vocabulary, width)),
}
for i in range(blocks):
    layer = f"model.layers.{i}"
    for name, rows in {"q": width, "k": key_heads * head, "v": key_heads * head, "o": width}.items():
        llama[f"{layer}.self_attn.{name}_proj.weight"] = random.normal(0, 0.4, (rows, width))
    for name, shape in {"gate": (hidden, width), "up": (hidden, width), "down": (width, hidden)}.items():
        llama[f"{layer}.mlp.{name}_proj.weight"] = random.normal(0, 0.3, shape)
    for name in ("input_layernorm", "post_attention_layernorm"):
        llama[f"{layer}.{name}.weight"] = random.normal(1, 0.2, width)
llama = {name: value.astype(np.float32) for name, value in llama.items()}

frequencies = np.outer(np.arange(length), 1 / 10000 ** (np.arange(0, head, 2) / head))
angles = np.concatenate([frequencies, frequencies], -1)


def rms_norm(x, weight):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * weight


def turned(x):
    rotate_half = np.concatenate([-x[..., head // 2 :], x[..., : head // 2]], -1)
    return x * np.cos(angles) + rotate_half * np.sin(angles)


def logits(tokens):
    x = llama["model.embed_tokens.weight"][tokens].astype(float)
    for i in range(blocks):
        weight = lambda name: llama[f"model.layers.{i}.{name}.weight"]
        n = rms_norm(x, weight("input_layernorm"))
        q, k, v = [(n @ weight(f"self_attn.{z}_proj").T).reshape(length, -1, head).transpose(1, 0, 2) for z in "qkv"]
        k, v = [np.repeat(z, heads // key_heads, 0) for z in (turned(k), v)]
        scores = turned(q) @ k.transpose(0, 2, 1) / np.sqrt(head) + np.triu(np.full((length, length), -np.inf), 1)
        p = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (p / p.sum(-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(length, width)
        x = x + mixed @ weight("self_attn.o_proj").T
        n = rms_norm(x, weight("post_attention_layernorm"))
        gate = n @ weight("mlp.gate_proj").T
        x = x + (gate / (1 + np.exp(-gate)) * (n @ weight("mlp.up_proj").T)) @ weight("mlp.down_proj").T
    return rms_norm(x, llama["model.norm.weight"]) @ llama["lm_head.weight"].T


class torch:
    cat = staticmethod(np.concatenate)


tokens = random.integers(0, vocabulary, length + 1)
z = logits(tokens[:-1])
print((np.log(np.exp(z).sum(-1)) - z[np.arange(length), tokens[1:]]).mean())
code = re.search(r"^    import torch\n(.*?)^    save_file", open(page).read(), re.S | re.M)[1]
code = re.sub(r"^    ", "", code, flags=re.M).replace("from safetensors.torch import save_file", "")
exec(code)
save_file({name: np.ascontiguousarray(value) for name, value in out.items()}, f"{folder}/llama.safetensors")
open(f"{folder}/llama.tokens", "wb").write(bytes(tokens.tolist()))
