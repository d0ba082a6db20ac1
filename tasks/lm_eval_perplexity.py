"""Word and byte perplexity and bits per byte exactly as lm-eval's `wikitext` task, through lm-eval's own API.

Gao et al., "The Language Model Evaluation Harness", 2021 (github.com/EleutherAI/lm-evaluation-harness), version 0.4,
task `wikitext` version 2: each page is detokenised and scored in disjoint windows after one EOS token; the normaliser
counts the words and bytes of the page *before* it was detokenised.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tasks.interface import DataError, Fact, Measurement, Metric, Protocol
from tasks.likelihood import finite
from tasks.lm_eval_model import quiet, scorer
from tasks.source import TextSource

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TASK = "wikitext"
METRICS = {"word_ppl": "word_perplexity", "byte_ppl": "byte_perplexity", "bits_per_byte": "bits_per_byte"}
"""Our name of a metric -> lm-eval's."""
AGGREGATIONS = {
    "word_perplexity": "weighted_perplexity",
    "byte_perplexity": "weighted_perplexity",
    "bits_per_byte": "bits_per_byte",
}


class LmEvalPerplexity(Protocol):
    """lm-eval's `wikitext` over any pages: a subclass says `name` and `source`, whose documents are the pages.

    Items are pages with `nll` (nats), `words` and `bytes`.
    """

    metrics = (
        Metric(name="word_ppl", unit="perplexity per word", higher_is_better=False),
        Metric(name="byte_ppl", unit="perplexity per byte", higher_is_better=False),
        Metric(name="bits_per_byte", unit="bits per byte", higher_is_better=False),
    )
    source: TextSource
    context: ClassVar[int] = 1024
    """Longest window in tokens; a model with fewer positions gets windows as long as it has."""
    batch_windows: ClassVar[int] = 4
    """Windows per forward pass: execution. lm-eval holds batch x context x vocabulary logits."""

    def fingerprint(self, mirror: Path | None) -> str:
        return self.source.fingerprint(mirror)

    def check(self, mirror: Path | None) -> None:
        self.source.check(mirror)

    def describe(self) -> dict[str, Fact]:
        return {
            **super().describe(),
            **self.source.describe(),
            "detokenised": True,
            "documents": "apart, each after a BOS or EOS token",
            "empty_documents": "skipped",
            "context_tokens": self.context,
            "stride_tokens": self.context,
            "scored": "every token once; a document's last window is filled up with the tokens before it",
            "normaliser": "word or byte of the document before it was detokenised",
            "average": "over words or bytes",
            "regime": "zero-shot",
        }

    def measure(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, mirror: Path | None) -> Measurement:
        """Run lm-eval on the pages; `DataError` when there are none or a log-likelihood is not finite."""
        found = self.source.documents(mirror)
        pages = [page for page in found if page.strip()]
        if not pages:
            raise DataError(f"{self.name}: the text has no pages")
        context = min(self.context, getattr(model.config, "max_position_embeddings", None) or self.context)
        with quiet():
            results = _evaluate(scorer(self.name, model, tokenizer, self.batch_windows, context), pages)
        samples = sorted(results["samples"][TASK], key=lambda sample: sample["doc_id"])
        nll = [-float(sample["word_perplexity"][0]) for sample in samples]
        finite(self.name, nll, [f"page {page}" for page in range(len(nll))])
        return Measurement(
            metrics={ours: float(results["results"][TASK][f"{theirs},none"]) for ours, theirs in METRICS.items()},
            items={
                "item": [str(page) for page in range(len(pages))],
                "nll": nll,
                "words": [int(sample["word_perplexity"][1]) for sample in samples],
                "bytes": [int(sample["byte_perplexity"][1]) for sample in samples],
            },
            details={
                "context": context,
                "lm_eval": version("lm_eval"),
                "pages": len(pages),
                "empty_documents": len(found) - len(pages),
            },
        )


def _evaluate(lm: Any, pages: list[str]) -> Any:
    """lm-eval's results, samples included, for its `wikitext` task with `pages` as the test documents."""
    from datasets import Dataset, DatasetDict
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.evaluator import evaluate
    from lm_eval.tasks.wikitext import preprocess_wikitext

    class Pages(ConfigurableTask):  # type: ignore[misc]
        def download(self, *args: Any, **kwargs: Any) -> None:
            self.dataset = DatasetDict(test=Dataset.from_dict({"page": pages}))

    task = Pages(
        config={
            "task": TASK,
            "output_type": "loglikelihood_rolling",
            "test_split": "test",
            "doc_to_text": "",
            "doc_to_target": preprocess_wikitext.wikitext_detokenizer,
            "process_results": preprocess_wikitext.process_results,
            "metric_list": [
                {"metric": metric, "aggregation": aggregation, "higher_is_better": False}
                for metric, aggregation in AGGREGATIONS.items()
            ],
            "num_fewshot": 0,
            "metadata": {"version": 2.0},
        }
    )
    return evaluate(lm=lm, task_dict={TASK: task}, bootstrap_iters=0, log_samples=True)
