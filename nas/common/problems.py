"""What pydantic finds wrong with a value, in the words of our messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_WORDS = {
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "must be a whole number of fewer digits",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "string_type": "must be a text",
}


def allowed(problem: Mapping[str, Any]) -> str:
    """What one of the `errors()` of a `ValidationError` says is allowed: `must be at least 1`.

    >>> allowed({"type": "greater_than_equal", "ctx": {"ge": 1}, "msg": "Input should be greater than or equal to 1"})
    'must be at least 1'
    """
    context = problem.get("ctx", {})
    match problem["type"]:
        case "greater_than_equal":
            return f"must be at least {_number(context['ge'])}"
        case "greater_than":
            return f"must be above {_number(context['gt'])}"
        case "less_than_equal":
            return f"must be at most {_number(context['le'])}"
        case "less_than":
            return f"must be below {_number(context['lt'])}"
        case "literal_error":
            return f"must be {context['expected']}"
    message = str(problem["msg"]).removeprefix("Value error, ").replace("Input should", "must")
    return _WORDS.get(problem["type"], message[:1].lower() + message[1:])


def _number(bound: Any) -> str:
    return f"{bound:,}" if isinstance(bound, int) else f"{bound:g}"
