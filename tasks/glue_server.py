"""The files that the GLUE server scores (gluebenchmark.com): `index<TAB>prediction`, a line per test example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

BINARY = ("0", "1")
ENTAILED = ("entailment", "not_entailment")
THREE_WAY = ("entailment", "neutral", "contradiction")


@dataclass(frozen=True, kw_only=True)
class ServerFile:
    """A file of predictions: whose, of which split, and how the server spells them."""

    protocol: str
    """The task whose model predicts."""
    config: str
    split: str
    """Of the hub's data set; a test example's index is its row."""
    labels: tuple[str, ...] = BINARY
    """Spelling by class index; empty for numbers, which are clipped to 0 to 5."""
    rows: int

    def lines(self, predictions: Sequence[float]) -> list[str]:
        """The file's lines, header first."""
        if self.labels:
            spelt = [self.labels[int(value)] for value in predictions]
        else:
            spelt = [f"{min(5.0, max(0.0, value)):.3f}" for value in predictions]
        return ["index\tprediction", *(f"{row}\t{text}" for row, text in enumerate(spelt))]


FILES: Mapping[str, ServerFile] = MappingProxyType(
    {
        "AX": ServerFile(protocol="glue.mnli.v1", config="ax", split="test", labels=THREE_WAY, rows=1104),
        "CoLA": ServerFile(protocol="glue.cola.v1", config="cola", split="test", rows=1063),
        "MNLI-m": ServerFile(protocol="glue.mnli.v1", config="mnli", split="test_matched", labels=THREE_WAY, rows=9796),
        "MNLI-mm": ServerFile(
            protocol="glue.mnli.v1", config="mnli", split="test_mismatched", labels=THREE_WAY, rows=9847
        ),
        "MRPC": ServerFile(protocol="glue.mrpc.v1", config="mrpc", split="test", rows=1725),
        "QNLI": ServerFile(protocol="glue.qnli.v1", config="qnli", split="test", labels=ENTAILED, rows=5463),
        "QQP": ServerFile(protocol="glue.qqp.v1", config="qqp", split="test", rows=390_965),
        "RTE": ServerFile(protocol="glue.rte.v1", config="rte", split="test", labels=ENTAILED, rows=3000),
        "SST-2": ServerFile(protocol="glue.sst2.v1", config="sst2", split="test", rows=1821),
        "STS-B": ServerFile(protocol="glue.stsb.v1", config="stsb", split="test", labels=(), rows=1379),
        "WNLI": ServerFile(protocol="glue.wnli.v1", config="wnli", split="test", rows=146),
    }
)
"""File name without `.tsv` -> what is in it; the server wants all. AX is the diagnostic set, for MNLI's model."""
