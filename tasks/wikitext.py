"""WikiText (Merity et al., "Pointer Sentinel Mixture Models", arXiv 1609.07843): its pages and its protocols.

The hub's rows are the lines of the original files; a line of a single blank is stored as the empty string. The `-v1`
sets have rare words replaced by `<unk>`, the `-raw-v1` sets do not: different texts, never one column.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tasks.hub import HubSplit
from tasks.lm_eval_perplexity import LmEvalPerplexity
from tasks.perplexity import TokenPerplexity
from tasks.wikitext_pages import REPO, REVISION, pages


@dataclass(frozen=True, kw_only=True)
class Lines:
    """The rows of a split as they are."""

    split: HubSplit

    def documents(self, mirror: Path | None) -> list[str]:
        return self.split.column("text", mirror)

    def fingerprint(self, mirror: Path | None) -> str:
        return self.split.fingerprint(mirror)

    def check(self, mirror: Path | None) -> None:
        self.split.check(mirror)


class Pages(Lines):
    """The articles of a split, rebuilt from its rows."""

    def documents(self, mirror: Path | None) -> list[str]:
        return pages(super().documents(mirror))


def _test(config: str) -> HubSplit:
    return HubSplit(repo=REPO, config=config, split="test", revision=REVISION)


class WikiText2(TokenPerplexity):
    """WikiText-2 raw test, lines joined by two newlines, 1024 tokens of context, stride 512 (transformers' docs)."""

    name = "wikitext2.token_ppl.v1"
    source = Lines(split=_test("wikitext-2-raw-v1"))
    stride = 512


class WikiText2Blocks(TokenPerplexity):
    """WikiText-2 raw test in blocks of 1024 tokens without overlap: gpt2 has 29.94 (huggingface/transformers#13761)."""

    name = "wikitext2_blocks.token_ppl.v1"
    source = Lines(split=_test("wikitext-2-raw-v1"))


class WikiText2Start(TokenPerplexity):
    """The first 16 blocks of 1024 tokens of `wikitext2_blocks.token_ppl.v1`: for models that are slow to measure."""

    name = "wikitext2_16k.token_ppl.v1"
    source = Lines(split=_test("wikitext-2-raw-v1"))
    limit_windows = 16


class WikiText2V1(TokenPerplexity):
    """WikiText-2 v1 test (with `<unk>`) in blocks of 1024 tokens without overlap, averaged over tokens.

    Krony-PT (arXiv 2412.12351) uses these windows but averages over windows: its gpt2 24.67 is another protocol.
    """

    name = "wikitext2v1.token_ppl.v1"
    source = Lines(split=_test("wikitext-2-v1"))


class WikiText2LmEval(LmEvalPerplexity):
    """lm-eval's `wikitext` on WikiText-2 raw test: gpt2 has 37.37 per word (huggingface/transformers#13761)."""

    name = "wikitext2.lm_eval.v1"
    source = Pages(split=_test("wikitext-2-raw-v1"))
