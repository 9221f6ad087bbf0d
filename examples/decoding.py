"""
A decoding step with 131072 tokens
==================================

A language model gives a logit for each token of its vocabulary, for each sequence of a batch; the next token is drawn
from the k most likely ones, at a temperature. The logits here are made up: they fall with the rank of a token by a
power, as words of a language do, and carry noise::

    python -m pip install matplotlib
    python decoding.py
"""

from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np

import fastsoft

VOCABULARY, BATCH, K, T = 131072, 8, 50, 0.8
rng = np.random.default_rng(0)
logits = rng.normal(0, 1, (BATCH, VOCABULARY)) - 1.3 * np.log1p(rng.permutation(VOCABULARY))
logits = (logits + 12).astype(np.float32)


def top_k(logits, k, temperature):
    """The k most likely tokens of each row, and their probabilities among themselves."""
    tokens = np.argpartition(logits, -k, axis=-1)[:, -k:]
    return tokens, fastsoft.softmax(np.take_along_axis(logits, tokens, -1), temperature=temperature)


def draw(tokens, probabilities):
    """One token for each row."""
    total = probabilities.cumsum(-1, dtype=np.float64)
    place = (total < rng.random((len(total), 1)) * total[:, -1:]).sum(-1)
    return np.take_along_axis(tokens, place[:, None], -1)[:, 0]


start = perf_counter()
tokens, probabilities = top_k(logits, K, T)
chosen = draw(tokens, probabilities)
step = perf_counter() - start
print(f"tokens {chosen}, in {1e3 * step:.2f} ms")

# %%
# What a model server keeps with it: the log-probability of each token that was drawn, over the whole vocabulary.
start = perf_counter()
log_probability = -fastsoft.softmax_cross_entropy(logits, chosen)
step = perf_counter() - start
print(f"log-probabilities {log_probability.round(2)}, in {1e3 * step:.2f} ms")

# %%
# ``where=`` does the same without a selection, if the mask is there: 0 outside.
threshold = np.take_along_axis(logits, tokens, -1).min(-1, keepdims=True)
masked = fastsoft.softmax(logits, where=logits >= threshold, temperature=T)
assert np.allclose(np.take_along_axis(masked, tokens, -1), probabilities, rtol=1e-6)

# %%
# Left, what the temperature does to one row; right, how often each token was drawn in 20000 draws from it.
DRAWS = 20_000
plt.style.use("petroff10")
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
rank = np.arange(1, VOCABULARY + 1)
for t, style in ((0.5, "-"), (T, "--"), (1.0, "-."), (1.5, ":")):
    left.loglog(rank, np.sort(fastsoft.softmax(logits[0], temperature=t))[::-1], style, label=f"T = {t:g}")
left.axvline(K, color="black", linewidth=0.8, label=f"k = {K}")
left.set(xlabel="rank of the token", ylabel="probability", ylim=(1e-12, 2))
left.grid(alpha=0.3)
left.legend()

order = probabilities[0].argsort()[::-1]
drawn = draw(np.repeat(tokens[:1], DRAWS, 0), np.repeat(probabilities[:1], DRAWS, 0))
share = (drawn[:, None] == tokens[0, order]).mean(0)
right.semilogy(rank[:K], probabilities[0, order], label="probability")
right.plot(rank[:K], share, "o", color="C1", markersize=4, label=f"share of {DRAWS} draws")
right.set(xlabel=f"rank of the token, T = {T}", ylabel="probability")
right.legend()
plt.show()
