"""What the values in a record may be: bounds that keep a record's text and numbers usable by every rendering."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema

NOT_FINITE = ["NaN", "Infinity", "-Infinity"]
MAX_COUNT = 2**63 - 1
MAX_FIELDS = 10_000


class Part(BaseModel):
    """A part of a record: immutable, without unknown keys; JSON has no NaN, so that it is written as a text."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")


def _short(fields: dict[str, Any]) -> dict[str, Any]:
    if fields and len(str(fields)) > MAX_FIELDS:
        raise ValueError(f"Fields should have at most {MAX_FIELDS} characters in all")
    return fields


Number = Annotated[float, WithJsonSchema({"anyOf": [{"type": "number"}, {"enum": NOT_FINITE}]})]
"""Any float; NaN and the infinities are written as texts."""
Finite = Annotated[float, Field(allow_inf_nan=False)]
"""A float that is a number."""
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""How much of something; never negative."""
Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
"""How many of something, in 63 bits."""
Name = Annotated[str, Field(max_length=1000)]
"""Text that names something; shown by `results.plain_text.plain`."""
Text = Annotated[str, Field(max_length=100_000)]
"""A message or the end of a log."""
Fields = Annotated[dict[str, Any], Field(max_length=100), AfterValidator(_short)]
"""Names and values of a few settings."""
Key = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]
"""Part of a path in the store: no separators, no leading dot."""
StorePath = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*$", max_length=1000)
]
"""A path below the store's root: no `..`, nothing absolute, no other scheme."""
