"""Speed: generation with a cache, the noise, the hardware's counters, and the stage that measures."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import median_abs_deviation
from transformers import GPT2Config, GPT2LMHeadModel

from harness.speed import energy
from harness.speed.energy import Nvml, Rapl
from harness.speed.generation import Workload, generate, prompt, workloads
from harness.speed.noise import difference, noise, p99
from harness.stage import Context, Execution, NoCheckpoints, silent
from harness.stages import profile
from methods import student, tiny
from methods.interface import Budget, MethodError
from methods.kronecker import Kronecker
from methods.svd import Svd
from results.speed_card import SpeedCard

RATES = ("prefill_ms", "decode_ms", "prefill_tokens_per_s", "decode_tokens_per_s")


def factorised(label: str, method: Any = None) -> Any:
    teacher = tiny.teacher(label)
    method = method or Svd()
    return method.compress(teacher, method.plan(teacher.config, Budget(value=0.7)), seed=0, statistics={})


def context(directory: Path) -> Context:
    execution = Execution(cpus=1)
    return Context(
        params={},
        inputs={"model": directory},
        output=directory,
        execution=execution,
        checkpoints=NoCheckpoints(),
        progress=silent,
    )


def measure(model: Any, directory: Path) -> SpeedCard:
    """What the stage finds, as the record holds it."""
    student.save(model, directory / "model")
    return SpeedCard.model_validate(profile.run(context(directory)))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("label", ["gpt2", "llama-untied"])
def test_generation_with_a_cache_gives_the_tokens_of_generation_without(label: str) -> None:
    model = factorised(label)
    work = Workload(batch=3, prompt_tokens=11, generated_tokens=7, prefills=2)
    found = generate(model, work)
    ids = prompt(work, model.config.vocab_size)
    with torch.no_grad():
        for _ in range(8):
            ids = torch.cat([ids, model(ids, use_cache=False).logits[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(found.tokens, ids[:, 11:])
    assert (len(found.prefill_s), len(found.decode_s)) == (2, 7)
    assert min(*found.prefill_s, *found.decode_s) > 0
    assert found.energy_j is None


@pytest.mark.parametrize("method", [Svd(), Kronecker()])
def test_both_forms_that_are_measured_compute_the_same(method: Any, tmp_path: Path, monkeypatch: Any) -> None:
    measured: dict[int, Any] = {}

    def noted(model: Any, work: Workload, meter: Any = None) -> Any:
        measured[id(model)] = model
        return generate(model, work, meter)

    monkeypatch.setattr(profile, "generate", noted)
    measure(factorised("gpt2", method), tmp_path)
    dense = [model for model in measured.values() if "surgery" not in model.config.to_dict()]
    ours = [model for model in measured.values() if model not in dense]
    assert dense
    assert ours
    tokens = tiny.tokens()
    with torch.no_grad():
        torch.testing.assert_close(dense[-1](tokens).logits, ours[-1](tokens).logits, rtol=1e-4, atol=1e-4)


def test_a_short_context_gets_a_short_workload() -> None:
    model = SimpleNamespace(config=SimpleNamespace(max_position_embeddings=32))
    for work in workloads(model, 16, 4):  # type: ignore[arg-type]
        assert work.prompt_tokens + work.generated_tokens <= 32
        assert min(work.prompt_tokens, work.generated_tokens) > 0


def test_noise_is_the_largest_of_its_three_differences() -> None:
    values = np.random.default_rng(0).lognormal(0, 0.1, 40)
    spread = 1.96 * 2**0.5 * float(median_abs_deviation(values, scale="normal")) / float(np.median(values))
    assert noise(list(values)) == pytest.approx(spread, rel=1e-3)
    assert noise([1.0, 1.5] * 10) == pytest.approx(max(0.4, 1.96 * 2**0.5 * 1.4826 * 0.25 / 1.25))
    assert noise([1.0] * 10 + [1.1] * 10 + [1.2] * 10) >= difference([1.0] * 10, [1.2] * 10)
    assert noise([2.0] * 4) == 0


def drifting(draw: np.random.Generator, rounds: int) -> np.ndarray:
    """Times of a machine that wanders by 1 % a round, is off by 1 %, and hiccups in a tenth of the rounds."""
    level = draw.normal(0, 0.01) + np.repeat(np.cumsum(draw.normal(0, 0.01, rounds)), 2)
    hiccups = 0.3 * draw.exponential(1, 2 * rounds) * (draw.random(2 * rounds) < 0.1)
    return np.exp(level + 0.01 * draw.standard_normal(2 * rounds) + hiccups)


@pytest.mark.parametrize("rounds", [4, 8, 25])
def test_two_simulated_measurements_differ_by_less_than_their_noise(rounds: int) -> None:
    draw = np.random.default_rng(0)
    pairs = [(drifting(draw, rounds), drifting(draw, rounds)) for _ in range(300)]
    inside = [difference(a, b) <= max(noise(list(a)), noise(list(b))) for a, b in pairs]
    assert np.mean(inside) > 0.85
    other = [difference(a, 1.5 * b) <= max(noise(list(a)), noise(list(b))) for a, b in pairs]
    assert np.mean(other) < 0.2


def test_a_percentile_needs_enough_values() -> None:
    assert p99([1.0] * 99) is None
    assert p99(list(map(float, range(1, 102)))) == pytest.approx(100)


@pytest.fixture
def longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many rounds as a real stage gets at least, and more where there is a second for them."""
    monkeypatch.setattr(profile, "LATENCY", profile.Box(seconds=0.4, fewest=4, most=100))
    monkeypatch.setattr(profile, "THROUGHPUT", profile.Box(seconds=0.2, fewest=3, most=10))
    monkeypatch.setattr(profile, "PREFILLS", 4)


@pytest.mark.sweep
@pytest.mark.usefixtures("longer")
def test_one_model_measured_again_stays_inside_the_noise(tmp_path: Path) -> None:
    """A dense model is its own dense equivalent (three times), and the stage runs three times."""
    cards = [measure(tiny.teacher("gpt2"), tmp_path) for _ in range(3)]
    within = [_inside(card, card.factorised, card, card.materialised) for card in cards]
    assert np.mean(within) >= 0.75
    between = [_inside(a, a.factorised, b, b.factorised) for a, b in combinations(cards, 2)]
    assert np.mean(between) >= 0.5


def _inside(one: SpeedCard, a: Any, other: SpeedCard, b: Any) -> list[bool]:
    assert one.noise is not None
    assert other.noise is not None
    largest = map(max, zip(one.noise.model_dump().values(), other.noise.model_dump().values(), strict=True))
    return [difference([getattr(a, r)], [getattr(b, r)]) <= x for r, x in zip(RATES, largest, strict=True)]


@dataclass
class Counter:
    """A joule each time it is read."""

    source: str = "a clock"
    read: int = 0

    def joules(self) -> float:
        self.read += 1
        return float(self.read)


def test_a_card_says_what_was_measured_and_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "meter", lambda device: Counter())
    card = measure(factorised("gpt2"), tmp_path)
    assert card.settings is not None
    assert card.noise is not None
    assert card.settings.model_dump() == {
        "device": "cpu", "threads": 1, "dtype": "float32", "prompt_tokens": 30, "generated_tokens": 2, "batch": 16,
        "warm_up_rounds": 1, "latency_rounds": 4, "throughput_rounds": 4, "energy_source": "a clock",
    }  # fmt: skip
    for form in (card.factorised, card.materialised):
        assert form is not None
        assert form.energy_j_per_token == pytest.approx(1 / 2)
        assert form.prefill_p99_ms is None
        assert form.decode_ms is not None
        assert 0 < form.decode_ms < 1000
        assert form.load_s is not None
        assert 0 < form.load_s < 10
    assert min(card.noise.model_dump().values()) >= 0


def test_without_a_counter_there_is_no_energy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "meter", lambda device: None)
    card = measure(factorised("gpt2"), tmp_path)
    assert card.settings is not None
    assert (card.settings.energy_source, card.factorised.energy_j_per_token) == (None, None)


def test_the_peak_holds_the_weights_of_one_form_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "BATCH", 1)
    config = GPT2Config(n_layer=2, n_embd=512, n_head=8, n_positions=32, vocab_size=512, bos_token_id=0, eos_token_id=0)
    model = GPT2LMHeadModel(config).eval()
    weights = 4 * student.count_params(model)
    card = measure(model, tmp_path)
    for form in (card.factorised, card.materialised):
        assert form is not None
        assert form.peak_memory_bytes is not None
        assert 0.9 * weights < form.peak_memory_bytes < 1.5 * weights


def test_a_student_without_a_dense_equivalent_is_measured_alone(tmp_path: Path, monkeypatch: Any) -> None:
    def refuse(model: Any) -> Any:
        raise MethodError("no dense weight")

    monkeypatch.setattr(student, "materialise", refuse)
    card = measure(factorised("gpt2"), tmp_path)
    assert card.materialised is None
    assert card.factorised.decode_ms


@pytest.fixture
def powercap(tmp_path: Path) -> Callable[..., Path]:
    """Write zones as the kernel shows them."""

    def write_zones(**counters_uj: int) -> Path:
        zones = {
            "package0": "intel-rapl:0",
            "core": "intel-rapl:0:0",
            "package1": "intel-rapl:1",
            "psys": "intel-rapl:2",
        }
        for name, counter in counters_uj.items():
            zone = tmp_path / zones[name]
            zone.mkdir(exist_ok=True)
            (zone / "name").write_text(name.replace("package", "package-") + "\n")
            (zone / "energy_uj").write_text(f"{counter}\n")
            (zone / "max_energy_range_uj").write_text("9999999\n")
        return tmp_path

    return write_zones


def test_rapl_sums_the_packages_and_goes_on_past_the_end_of_a_counter(powercap: Callable[..., Path]) -> None:
    meter = Rapl.find(powercap(package0=1_000_000, package1=9_000_000, core=500, psys=7))
    assert meter is not None
    before = meter.joules()
    powercap(package0=3_500_000, package1=500_000, core=9_000_000, psys=9_999_999)
    assert meter.joules() - before == pytest.approx(2.5 + 1.5)
    powercap(package0=3_500_000, package1=750_000)
    assert meter.joules() - before == pytest.approx(4.25)


@pytest.mark.parametrize("missing", ["everything", "package0", "energy_uj", "number"])
def test_where_rapl_tells_nothing_there_is_no_meter(missing: str, powercap: Callable[..., Path]) -> None:
    root = powercap(**{"psys" if missing == "package0" else "package0": 1})
    counter = root / "intel-rapl:0" / "energy_uj"
    if missing == "everything":
        root = root / "none"
    elif missing == "energy_uj":
        counter.unlink()
    elif missing == "number":
        counter.write_text("")
    assert Rapl.find(root) is None


def test_nvml_counts_millijoules(monkeypatch: pytest.MonkeyPatch) -> None:
    class Error(Exception):
        pass

    counted = {"GPU-1234": 2500}

    def handle(uuid: str) -> str:
        if uuid not in counted:
            raise Error
        return uuid

    library = SimpleNamespace(
        NVMLError=Error,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=handle,
        nvmlDeviceGetTotalEnergyConsumption=counted.__getitem__,
    )
    monkeypatch.setitem(sys.modules, "pynvml", library)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid="1234"))
    meter = energy.meter("cuda")
    assert isinstance(meter, Nvml)
    assert meter.joules() == 2.5
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid="5678"))
    assert energy.meter("cuda") is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert energy.meter("cuda") is None
