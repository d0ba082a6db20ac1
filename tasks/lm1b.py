"""The One Billion Word Benchmark (Chelba et al., arXiv 1312.3005): sentences of news in random order."""

from __future__ import annotations

from tasks.hub import HubSplit
from tasks.perplexity import BY_WORD, TokenPerplexity
from tasks.source import Rows


class BillionWords(TokenPerplexity):
    """One Billion Word test: each sentence by itself after one BOS or EOS token; per word, the end not counted."""

    name = "lm1b.word_ppl.v1"
    metrics = (BY_WORD,)
    normaliser = "word"
    join = None
    source = Rows(
        split=HubSplit(
            repo="billion-word-benchmark/lm1b",
            config="plain_text",
            split="test",
            revision="8d52bfd3cc2819fc1166dbb8144c328e2690de3e",
        )
    )
