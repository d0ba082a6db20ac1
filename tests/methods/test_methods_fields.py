"""Fields as written in YAML: strict, expanded, and back."""

import re

import pytest

from methods.fields import changed_fields, decode, grid
from methods.interface import MethodError
from methods.svd import Svd
from methods.tensor_train import TensorTrain


def test_decodes_and_reports_what_changed():
    method = decode("svd", {"layers": "odd", "matrices": "all"})
    assert method == Svd(layers="odd")
    assert changed_fields(method) == {"layers": "odd"}
    assert changed_fields(Svd()) == {}


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("svd", {"layer": "odd"}, "svd: unknown field 'layer'; did you mean 'layers'?"),
        ("identity", {"rank": 3}, "identity: unknown field 'rank'; it has no fields"),
        ("svd", {"layers": "od"}, "svd: layers: Input should be 'all', 'odd' or 'even'"),
        ("tensor_train", {"cores": "3"}, "tensor_train: cores: Input should be a valid integer"),
        ("tensor_train", {"cores": 2.5}, "tensor_train: cores: Input should be a valid integer"),
        ("tensor_train", {"cores": 1}, "tensor_train: cores must be at least 2, not 1"),
        ("tensor_train", {"cores": float("nan")}, "tensor_train: Out of range float values"),
        ("svvd", {}, "method 'svvd' is not known; did you mean 'svd'?"),
    ],
)
def test_refuses_in_one_line(name, values, message):
    with pytest.raises(MethodError) as error:
        decode(name, values)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_lists_make_a_grid_with_the_last_field_fastest():
    methods = grid("tensor_train", {"cores": [2, 3], "matrices": ["ffn", "all"], "layers": "odd"})
    wanted = [(c, m) for c in (2, 3) for m in ("ffn", "all")]
    assert methods == [TensorTrain(cores=c, matrices=m, layers="odd") for c, m in wanted]
    assert grid("svd", {}) == [Svd()]


def test_a_list_is_one_value_where_the_type_takes_it(monkeypatch):
    import sys
    from dataclasses import dataclass
    from types import ModuleType

    from methods import registry

    @dataclass(frozen=True, kw_only=True)
    class Sliced(Svd):
        widths: tuple[int, ...] = (1,)

    module = ModuleType("sliced_method")
    module.Sliced = Sliced
    monkeypatch.setitem(sys.modules, "sliced_method", module)
    monkeypatch.setattr(registry, "_targets", lambda: {"sliced": "sliced_method:Sliced"})
    assert grid("sliced", {"widths": [4, 8]}) == [Sliced(widths=(4, 8))]
    assert grid("sliced", {"widths": [[4, 8], [2]]}) == [Sliced(widths=(4, 8)), Sliced(widths=(2,))]
    assert changed_fields(Sliced(widths=(2,))) == {"widths": [2]}


def test_grid_refuses_nothing_to_choose_from_and_wrong_members():
    with pytest.raises(MethodError, match="cores: an empty list"):
        grid("tensor_train", {"cores": []})
    with pytest.raises(MethodError, match="cores: Input should be a valid integer"):
        grid("tensor_train", {"cores": [2, "3"]})


def test_a_default_beside_a_preset_that_would_overrule_it_is_refused():
    assert decode("tq", {"preset": "tq-81m", "layers": "even", "head": "untied"}).layers == "even"
    message = "tq: layers: 'all' is the default, which does not win over preset 'tq-81m' ('odd'); give the other fields"
    with pytest.raises(MethodError, match=re.escape(message)):
        decode("tq", {"preset": "tq-81m", "layers": "all"})


def test_a_preset_that_does_not_go_with_other_fields_names_the_method():
    with pytest.raises(MethodError, match=r"^tq: shapes: 'up' is outside matrices: attention"):
        decode("tq", {"preset": "tq-81m", "matrices": "attention"})
