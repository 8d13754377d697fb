"""How much work and room the rendering of other people's templates may take."""

from __future__ import annotations

import re
import string
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import jinja2
from jinja2.sandbox import safe_range
from jinja2.utils import Namespace

MAX_WORK = 300_000
"""Turns of loops, calls, operators and stretches of 250 characters that one rendering may cost: about a second."""
MAX_SECONDS = 5.0
"""What a rendering may take at most, should its work be of another kind."""
MAX_SIZE = 2_000_000
"""Characters of any value and of the rendered text; each value within a list counts as a hundred more."""
_WIDEST = 1_000
"""The largest number that a call may be given: it could be a width."""
_LONGEST_FORMAT = 10_000  # characters of a text with fields to fill in
_CHARACTERS_A_UNIT, _ITEMS_A_UNIT = 250, 10
_ITEM_SIZE = 100
_LOOKS = 256  # units of work between two looks at the clock

_PARAMETERS = {"indent": ("width", "first", "blank"), "join": ("d", "attribute"), "replace": ("old", "new", "count")}
# Without what makes bytes (encode), takes tables (translate, format_map) or widens a text by a character (expandtabs).
_TEXT_METHODS = frozenset({
    "capitalize", "casefold", "center", "count", "endswith", "find", "format", "index", "isalnum", "isalpha", "isascii",
    "isdecimal", "isdigit", "isidentifier", "islower", "isnumeric", "isprintable", "isspace", "istitle", "isupper",
    "join", "ljust", "lower", "lstrip", "partition", "removeprefix", "removesuffix", "replace", "rfind", "rindex",
    "rjust", "rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "swapcase", "title",
    "upper", "zfill",
})  # fmt: skip
_NAMESPACE_VALUES = "_Namespace__attrs"  # every other name is one of the template's own


class TemplateLimitError(jinja2.TemplateError):
    """A template asked for more work, or for a larger value, than any chat template needs."""


class Budget:
    """How much work a rendering has left."""

    def __init__(self) -> None:
        self._left = self._next_look = 0
        self._deadline = 0.0

    def renew(self) -> None:
        """Begin a rendering."""
        self._left, self._next_look = MAX_WORK, MAX_WORK - _LOOKS
        self._deadline = time.monotonic() + MAX_SECONDS

    def spend(self, units: int = 1) -> None:
        """Count work. TemplateLimitError when there is none left."""
        self._left -= units
        if self._left < 0:
            raise TemplateLimitError("it loops or calls without end, or nearly so")
        if self._left <= self._next_look:
            self._next_look = self._left - _LOOKS
            if time.monotonic() > self._deadline:
                raise TemplateLimitError(f"it takes more than {MAX_SECONDS:g} seconds")

    def counted(self, items: Iterable[Any]) -> Iterator[Any]:
        """`items`, each of which is work."""
        for item in items:
            self.spend()
            yield item

    def checked(self, value: Any) -> Any:
        """`value`, if it is not too large. To look at it is work too."""
        if isinstance(value, str):
            self.require(len(value))
            self.spend(len(value) // _CHARACTERS_A_UNIT)
        elif isinstance(value, Iterator):  # what filters give lazily: it could be anything when it is read
            return self.checked(list(self.counted(value)))
        elif isinstance(value, list | tuple | dict):
            self.require(self.size(value))
        elif isinstance(value, bytes | bytearray):
            raise TemplateLimitError("it makes bytes")
        elif isinstance(value, int) and abs(value) >= 2**63:
            raise TemplateLimitError("it makes a number of more than 64 bits")
        return value

    def compared(self, value: Any, operators: int) -> Any:
        """`value`, which came of so many comparisons."""
        self.spend(operators)
        return value

    def size(self, value: Any) -> int:
        """Characters and values (a hundred each) in `value`, counted to `MAX_SIZE`; what stands twice counts twice."""
        total, looked_at, waiting = -_ITEM_SIZE, 0, [value]
        while waiting and total <= MAX_SIZE:
            one = waiting.pop()
            looked_at += 1
            total += _ITEM_SIZE
            if isinstance(one, str):
                total += len(one)
            elif isinstance(one, Mapping):
                waiting.extend(one.keys())
                waiting.extend(one.values())
            elif isinstance(one, range):
                total += _ITEM_SIZE * len(one)
            elif isinstance(one, Namespace):
                waiting.extend(getattr(one, _NAMESPACE_VALUES).values())
            elif isinstance(one, Collection):
                waiting.extend(one)
        self.spend(looked_at // _ITEMS_A_UNIT)
        return total

    def require(self, size: int) -> None:
        """Refuse a value of this size, best before it is made."""
        if size > MAX_SIZE:
            raise TemplateLimitError(f"it makes a value of more than {MAX_SIZE:,} characters, or as large a list")

    def collected(self, parts: Iterable[str]) -> str:
        """`parts` as one text."""
        found, total = [], 0
        for part in parts:
            total += len(part)
            self.require(total)
            self.spend(1 + len(part) // _CHARACTERS_A_UNIT)
            found.append(part)
        return "".join(found)

    def before_call(self, function: Any, arguments: Iterable[Any]) -> None:
        """Refuse a call whose result could be huge, and count it."""
        self.spend()
        arguments = list(arguments)
        if function is not safe_range:
            self._require_small(arguments)
        function = getattr(function, "__wrapped__", function)  # the sandbox wraps str.format
        text = getattr(function, "__self__", None)
        if isinstance(text, str):
            self._before_method(function.__name__, text, arguments)

    def _require_small(self, arguments: Iterable[Any]) -> None:
        for argument in arguments:
            if isinstance(argument, int) and abs(argument) > _WIDEST:
                raise TemplateLimitError(f"it gives a function the number {argument}")

    def _before_method(self, name: str, text: str, arguments: list[Any]) -> None:
        if name not in _TEXT_METHODS:
            raise TemplateLimitError(f"it calls {name}, which is not for templates")
        if name == "join" and arguments:
            self._before_join(arguments[0], text)
        elif name == "replace" and len(arguments) >= 2:
            self._before_replace(text, *arguments[:2])
        elif name == "format":
            self._before_format(text, _braced_fields(text), arguments)

    def before_filter(self, name: str, value: Any, arguments: list[Any], named: Mapping[str, Any]) -> None:
        """The same for filters, which are functions of what stands before the bar."""
        self.spend()
        self._require_small([*arguments, *named.values()])
        given = {**dict(zip(_PARAMETERS.get(name, ()), arguments, strict=False)), **named}
        if name == "join":
            self._before_join(value, given.get("d", ""))
        elif name == "replace":
            self._before_replace(str(value), given.get("old", ""), given.get("new", ""))
        elif name == "indent":
            text, width = str(value), given.get("width", 4)
            self.require(len(text) + len(text.splitlines()) * (len(width) if isinstance(width, str) else int(width)))

    def _before_join(self, items: Any, separator: Any) -> None:
        if isinstance(items, Collection):
            self.require(len(items) * len(str(separator)) + self.size(items))

    def _before_replace(self, text: str, old: Any, new: Any) -> None:
        self.require(len(text) + text.count(str(old)) * len(str(new)))

    def _before_format(self, text: str, fields: int, arguments: Any) -> None:
        """Each field may show all that is given, in a width of up to a thousand."""
        self.require(len(text) + fields * (_WIDEST + self.size(arguments)))

    def before_operator(self, operator: str, left: Any, right: Any) -> None:
        """Refuse a product, power or sum that could be huge, and count it."""
        self.spend()
        if operator == "**":
            if not all(isinstance(one, int | float) and abs(one) <= 64 for one in (left, right)):
                raise TemplateLimitError("it raises a large number to a power")
        elif operator == "*":
            for one, times in ((left, right), (right, left)):
                if isinstance(one, str | list | tuple) and isinstance(times, int):
                    self.require(len(one) * times)
        elif operator == "+" and isinstance(left, str | list | tuple) and isinstance(right, str | list | tuple):
            self.require(len(left) + len(right))
        elif operator == "%" and isinstance(left, str):
            self._before_format(left, _percent_fields(left), right)


def _braced_fields(text: str) -> int:
    """How many fields `text.format` fills in. TemplateLimitError for a width of many digits, or one that is given."""
    _require_short_format(text)
    specifications = [spec for _, _, spec, _ in string.Formatter().parse(text) if spec is not None]
    if any("{" in spec or _LONG_NUMBER.search(spec) for spec in specifications):
        raise TemplateLimitError(_WIDE)
    return len(specifications)


def _percent_fields(text: str) -> int:
    """The same for Python's older `%`."""
    _require_short_format(text)
    # A name in parentheses may hold anything, and the width follows it: any long number could be one.
    if "*" in text or _PERCENT_WIDTH.search(text) or ("%(" in text and _LONG_NUMBER.search(text)):
        raise TemplateLimitError(_WIDE)
    return text.count("%")


_LONG_NUMBER = re.compile(r"\d{4}")
_PERCENT_WIDTH = re.compile(r"%[^%a-zA-Z]*\d{4}")
_WIDE = "it formats with a width of more than 999, or one that is an argument"


def _require_short_format(text: str) -> None:
    if len(text) > _LONGEST_FORMAT:
        raise TemplateLimitError(f"it fills in a text of more than {_LONGEST_FORMAT:,} characters")
