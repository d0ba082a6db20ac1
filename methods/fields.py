"""A method's fields as a user writes them: decoded strictly, expanded into a grid, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, replace
from itertools import product
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_jsonable_python

from methods import registry
from methods.interface import Method, MethodError
from methods.spelling import nearest


def decode(name: str, values: Mapping[str, Any]) -> Method:
    """The method `name` with these fields.

    Raises:
        MethodError: an unknown method or field, a value of the wrong type (no coercion but list to tuple), or one that
            its preset would overrule.
    """
    kind = registry.load(name)
    _refuse_unknown(name, kind, values)
    try:
        method = TypeAdapter(kind).validate_json(_json(name, values), strict=True)
    except ValidationError as error:
        raise MethodError(_explain(name, error)) from None
    _refuse_overruled(name, method, values)
    return method


def grid(name: str, values: Mapping[str, Any]) -> list[Method]:
    """One method per combination of the fields given as lists.

    A list stands for alternatives where the field's type does not accept it as one value: a list for a scalar field, a
    list of lists for a field that is a sequence. The last field varies fastest.

    Raises:
        MethodError: as `decode`, or an empty list of alternatives.
    """
    kind = registry.load(name)
    _refuse_unknown(name, kind, values)
    hints = get_type_hints(kind)
    alternatives = [_alternatives(name, field, value, hints[field]) for field, value in values.items()]
    return [decode(name, dict(zip(values, each, strict=True))) for each in product(*alternatives)]


def settle(method: Method) -> Method:
    """`method` with its preset's fields filled in; a field that differs from its default stays as it is.

    Raises:
        MethodError: the preset is not known.
    """
    name = getattr(method, "preset", None)
    if name is None:
        return method
    if name not in method.presets:
        raise MethodError(f"preset: {name!r} is not known{nearest(str(name), method.presets)}")
    defaults = {each.name: _default(each) for each in fields(method)}  # type: ignore[arg-type]
    given = {field for field, value in defaults.items() if getattr(method, field) != value}
    return replace(method, **{k: v for k, v in method.presets[name].fields.items() if k not in given})  # type: ignore[type-var]


def changed_fields(method: Method) -> dict[str, Any]:
    """The fields that differ from their defaults, as JSON holds them."""
    current = {each.name: getattr(method, each.name) for each in fields(method)}  # type: ignore[arg-type]
    defaults = {each.name: _default(each) for each in fields(method)}  # type: ignore[arg-type]
    changed: dict[str, Any] = to_jsonable_python({k: v for k, v in current.items() if v != defaults[k]})
    return changed


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _refuse_unknown(name: str, kind: type[Method], values: Mapping[str, Any]) -> None:
    known = [each.name for each in fields(kind)]  # type: ignore[arg-type]
    for field in values:
        if field not in known:
            hint = nearest(str(field), known) if known else "; it has no fields"
            raise MethodError(f"{name}: unknown field {field!r}{hint}")


def _refuse_overruled(name: str, method: Method, values: Mapping[str, Any]) -> None:
    """A default given beside a preset: `settle` cannot tell it from a field left out, and the preset would win."""
    try:
        settled = settle(method)
    except MethodError as error:
        raise MethodError(f"{name}: {error}") from None
    for field in values:
        if getattr(settled, field) != getattr(method, field):
            raise MethodError(
                f"{name}: {field}: {values[field]!r} is the default, which does not win over preset "
                f"{values['preset']!r} ({getattr(settled, field)!r}); give the other fields instead of the preset"
            )


def _alternatives(name: str, field: str, value: Any, hint: Any) -> list[Any]:
    if not isinstance(value, list):
        return [value]
    try:
        TypeAdapter(hint).validate_json(_json(name, value), strict=True)
    except ValidationError:
        if not value:
            raise MethodError(f"{name}: {field}: an empty list of alternatives") from None
        return value
    return [value]


def _json(name: str, value: Any) -> str:
    try:
        return json.dumps(value, allow_nan=False, default=_refuse_value)
    except (TypeError, ValueError) as error:
        raise MethodError(f"{name}: {error}") from None


def _refuse_value(value: Any) -> Any:
    raise TypeError(f"{value!r} has no JSON form; quote it")


def _explain(name: str, error: ValidationError) -> str:
    """One line for the first thing that is wrong."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"] if str(part).isidentifier() or isinstance(part, int))
    message = str(first["msg"]).removeprefix("Value error, ")
    return f"{name}: {where}: {message}" if where else f"{name}: {message}"
