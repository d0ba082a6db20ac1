"""WikiText's repository, and its pages rebuilt from the hub's rows."""

from __future__ import annotations

import re
from collections.abc import Iterable

REPO = "Salesforce/wikitext"
REVISION = "b08601e04326c79dfdd32d625aee71d232d685c3"
TITLE = re.compile(r"= [^=].* =|= [^=] =")


def pages(rows: Iterable[str]) -> list[str]:
    """Rebuild articles from lines: ` = Title = ` begins one, ` = = Section = = ` does not.

    The original file is kept to the byte, blank lines (` \\n`) included, because byte counts depend on it; as in
    `EleutherAI/wikitext_document_level`, the newline before a title belongs to no page.
    """
    articles: list[list[str]] = [[]]
    for row in rows:
        if TITLE.fullmatch(row.strip()):
            articles.append([])
        articles[-1].append(row or " \n")
    texts = ["".join(lines) for lines in articles]
    texts[:-1] = [text.removesuffix("\n") for text in texts[:-1]]
    return [text for text in texts if text.strip()]
