"""WikiText (Merity et al., "Pointer Sentinel Mixture Models", arXiv 1609.07843): its pages and its protocols.

The hub's rows are the lines of the original files; a line of a single blank is stored as the empty string. The `-v1`
sets have rare words replaced by `<unk>`, the `-raw-v1` sets do not: different texts, never one column.
"""

from __future__ import annotations

from pathlib import Path

from tasks.hub import HubSplit
from tasks.lm_eval_perplexity import LmEvalPerplexity
from tasks.perplexity import BY_WINDOW, TokenPerplexity
from tasks.source import Rows
from tasks.wikitext_pages import REPO, REVISION, pages

TEXTS = {
    "wikitext-2-raw-v1": "bfe9eb16ab9987fb88bde4ea9a30a00f2a45db01dfc14bad78d05325789c4f12",
    "wikitext-2-v1": "c247f080973a48c703f7a0f8e8f6a4711ef5df4fc5beac04abf56b591987e002",
}
"""Configuration -> digest of its test split, where it is known."""


class Pages(Rows):
    """The articles of a split, rebuilt from its rows."""

    def documents(self, mirror: Path | None) -> list[str]:
        return pages(super().documents(mirror))


def _split(config: str) -> HubSplit:
    return HubSplit(repo=REPO, config=config, split="test", revision=REVISION)


def _lines(config: str) -> Rows:
    return Rows(split=_split(config), sha256=TEXTS.get(config))


def _pages(config: str) -> Pages:
    return Pages(split=_split(config), sha256=TEXTS.get(config))


class Lines(TokenPerplexity):
    """Perplexity per token of a split's lines, empty ones included, joined by two newlines."""

    empty = "joined"


class WikiText2(Lines):
    """WikiText-2 raw test, lines joined by two newlines, 1024 tokens of context, stride 512, without special tokens."""

    name = "wikitext2.token_ppl.v1"
    source = _lines("wikitext-2-raw-v1")
    stride = 512


class WikiText2Documented(WikiText2):
    """The loop of transformers' documentation at stride 512: as v1, with the tokenizer's special tokens."""

    name = "wikitext2.token_ppl.v2"
    special_tokens = True


class WikiText2Blocks(Lines):
    """WikiText-2 raw test in blocks of 1024 tokens without overlap: gpt2 has 29.94 (huggingface/transformers#13761)."""

    name = "wikitext2_blocks.token_ppl.v1"
    source = _lines("wikitext-2-raw-v1")


class WikiText2BlocksDocumented(WikiText2Blocks):
    """The loop of transformers' documentation at stride 1024: as v1, with the tokenizer's special tokens."""

    name = "wikitext2_blocks.token_ppl.v2"
    special_tokens = True


class WikiText2Start(WikiText2Blocks):
    """The first 16 blocks of 1024 tokens of `wikitext2_blocks.token_ppl.v1`: for models that are slow to measure."""

    name = "wikitext2_16k.token_ppl.v1"
    limit_windows = 16


class WikiText2SvdLlm(Lines):
    """SVD-LLM's: WikiText-2 raw test in blocks of 2048 tokens, the rest at the end left out (arXiv 2403.07378)."""

    name = "wikitext2_2048.token_ppl.v1"
    source = _lines("wikitext-2-raw-v1")
    special_tokens = True
    context = 2048
    short_window = "dropped"


class WikiText2V1(Lines):
    """WikiText-2 v1 test (with `<unk>`) in blocks of 1024 tokens without overlap, averaged over tokens.

    Krony-PT (arXiv 2412.12351) uses these windows but averages over windows: `wikitext2v1.window_ppl.v1`.
    """

    name = "wikitext2v1.token_ppl.v1"
    source = _lines("wikitext-2-v1")


class WikiText2V1Windows(Lines):
    """Krony-PT's and TQCompressor's: WikiText-2 v1 test, blocks of 1024, mean over windows: gpt2 has 24.67."""

    name = "wikitext2v1.window_ppl.v1"
    metrics = (BY_WINDOW,)
    source = _lines("wikitext-2-v1")
    special_tokens = True
    average = "windows"


class WikiText103V1Windows(WikiText2V1Windows):
    """Krony-PT's and TQCompressor's: WikiText-103 v1 test, blocks of 1024, mean over windows: gpt2 has 29.16."""

    name = "wikitext103v1.window_ppl.v1"
    source = _lines("wikitext-103-v1")


class WikiText103(WikiText2Documented):
    """WikiText-103 raw test, context 1024, stride 512: the same text as WikiText-2 raw test, from another file."""

    name = "wikitext103.token_ppl.v1"
    source = _lines("wikitext-103-raw-v1")


class WikiText2LmEval(LmEvalPerplexity):
    """lm-eval's `wikitext` on WikiText-2 raw test: gpt2 has 37.37 per word (huggingface/transformers#13761)."""

    name = "wikitext2.lm_eval.v1"
    source = _pages("wikitext-2-raw-v1")


class WikiText103LmEval(LmEvalPerplexity):
    """lm-eval's `wikitext` scoring on WikiText-103 raw test, by page."""

    name = "wikitext103.lm_eval.v1"
    source = _pages("wikitext-103-raw-v1")
