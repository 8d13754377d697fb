"""A Jinja environment for other people's templates: no attribute tricks, no files, no work without end.

A chat template is a program. Jinja's sandbox keeps it from Python's insides (CVE-2024-34359 was a template rendered
without one) but lets it loop for hours or double a string until memory is gone. So the syntax tree is rewritten before
it is compiled: every turn of a loop, call, filter, operator and display goes through `Budget`, which counts work and
refuses values that are too large before they are made. What is not counted (comparing two long texts, say) happens
between two counts, and there a clock is looked at too.
"""

from __future__ import annotations

import functools
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

MAX_WORK = 300_000
"""Turns of loops, calls, operators and kilobytes of text that one rendering may cost: about a second."""
MAX_SECONDS = 5.0
"""What a rendering may take at most, should its work be of another kind."""
MAX_SIZE = 2_000_000
"""Characters of any value and of the rendered text; an item of a list counts as a hundred."""
_WIDEST = 1_000
"""The largest number that a call may be given: it could be a width."""
_CHARACTERS_A_UNIT, _ITEMS_A_UNIT = 1_000, 10
_ITEM_SIZE = 100
_LOOKS = 256  # units of work between two looks at the clock

BEGIN_ASSISTANT, END_ASSISTANT, BREAK = "\ufdd0", "\ufdd1", "\ufdd2"
"""Stand-ins in rendered text: Unicode's noncharacters, which no text may be interchanged with.

Around what the assistant says, and inside a special token's spelling in a message, so that it makes no special token.
"""

_FILTERS = frozenset({
    "abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float", "indent", "int", "items",
    "join", "last", "length", "list", "lower", "map", "max", "min", "reject", "rejectattr", "replace", "reverse",
    "round", "safe", "select", "selectattr", "sort", "string", "sum", "title", "trim", "unique", "upper", "wordcount",
})  # fmt: skip


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
        if isinstance(value, str | bytes):
            self.require(len(value))
            self.spend(len(value) // _CHARACTERS_A_UNIT)
        elif isinstance(value, list | tuple | dict):
            self.require(self.size(value))
        elif isinstance(value, int) and abs(value) >= 2**63:
            raise TemplateLimitError("it makes a number of more than 64 bits")
        return value

    def size(self, value: Any) -> int:
        """Characters and items (a hundred each) in `value`, counted to `MAX_SIZE`; what is there twice counts twice."""
        total, looked_at, waiting = 0, 0, [value]
        while waiting and total <= MAX_SIZE:
            one = waiting.pop()
            looked_at += 1
            total += len(one) if isinstance(one, str | bytes) else _ITEM_SIZE
            if isinstance(one, Mapping):
                waiting.extend(one.keys())
                waiting.extend(one.values())
            elif isinstance(one, list | tuple):
                waiting.extend(one)
        self.spend(looked_at // _ITEMS_A_UNIT)
        return total

    def require(self, size: int) -> None:
        """Refuse a value of this size, best before it is made."""
        if size > MAX_SIZE:
            raise TemplateLimitError(f"it makes a value of more than {MAX_SIZE:,} characters, or as large a list")

    def before_call(self, function: Any, arguments: Iterable[Any]) -> None:
        """Refuse a call whose result could be huge, and count it."""
        self.spend()
        arguments = list(arguments)
        for argument in arguments:
            if isinstance(argument, int) and abs(argument) > _WIDEST:
                raise TemplateLimitError(f"it gives a function the number {argument}")
        function = getattr(function, "__wrapped__", function)  # the sandbox wraps str.format
        text = getattr(function, "__self__", None)
        if isinstance(text, str):
            self._before_method(function.__name__, text, arguments)

    def _before_method(self, name: str, text: str, arguments: list[Any]) -> None:
        if name == "join" and arguments:
            self._before_join(arguments[0], text)
        elif name == "replace":
            self._before_replace(text, arguments)
        elif name in ("format", "format_map"):
            _require_narrow(text)
        elif name == "translate" or (name == "expandtabs" and len(text) > _WIDEST):
            raise TemplateLimitError(f"it calls {name}")

    def before_filter(self, name: str, value: Any, arguments: list[Any]) -> None:
        """The same for filters, which are functions of what stands before the bar."""
        self.before_call(None, arguments)
        if name == "join":
            self._before_join(value, arguments[0] if arguments else "")
        elif name == "replace":
            self._before_replace(str(value), arguments)
        elif name == "indent" and isinstance(value, str):
            width = arguments[0] if arguments else 4
            self.require(len(value) + value.count("\n") * (len(width) if isinstance(width, str) else int(width)))

    def _before_join(self, items: Any, separator: Any) -> None:
        if isinstance(items, list | tuple | dict):
            self.require(len(items) * len(str(separator)) + self.size(items))

    def _before_replace(self, text: str, arguments: list[Any]) -> None:
        if len(arguments) >= 2:
            self.require(len(text) + text.count(str(arguments[0])) * len(str(arguments[1])))

    def before_operator(self, operator: str, left: Any, right: Any) -> None:
        """Refuse a product, power or sum that could be huge, and count it."""
        self.spend()
        if operator == "**":
            if not all(isinstance(one, int | float) and abs(one) <= 64 for one in (left, right)):
                raise TemplateLimitError("it raises a large number to a power")
        elif operator == "*":
            for one, times in ((left, right), (right, left)):
                if isinstance(one, str | bytes | list | tuple) and isinstance(times, int):
                    self.require(len(one) * times)
        elif operator == "+" and isinstance(left, str | list | tuple) and isinstance(right, str | list | tuple):
            self.require(len(left) + len(right))
        elif operator == "%" and isinstance(left, str):
            _require_narrow(left)
            for one in right if isinstance(right, tuple) else (right,):
                if isinstance(one, int) and abs(one) > _WIDEST and "*" in left:
                    raise TemplateLimitError("it formats with a width that is an argument")


def _require_narrow(text: str) -> None:
    """A format with a width of many digits makes a giant of a letter."""
    if re.search(r"%[^%a-zA-Z]*\d{4}|\{[^{}]*:[^{}]*\d{4}", text):
        raise TemplateLimitError("it formats with a width of more than 999")


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja as transformers sets it up for chat templates, with limits and without a loader.

    `now` is what `strftime_now` tells; None for the time of the call.
    """

    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self, *, now: datetime | None = None) -> None:
        self.budget = Budget()
        # Not optimised: constant expressions would be computed while compiling, outside of any budget.
        extensions = [_Generation, loopcontrols]
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=extensions, optimized=False)
        budget = self.budget

        def strftime_now(form: str) -> str:
            return (now or datetime.now()).strftime(form)

        self.globals = {
            "range": self.globals["range"],
            "dict": _plain_dict,
            "namespace": _PlainNamespace,
            "raise_exception": _raise_exception,
            "strftime_now": strftime_now,
        }
        self.filters = {name: _counted_filter(name, self.filters[name], budget) for name in _FILTERS}
        self.filters["tojson"] = _counted_filter("tojson", _tojson, budget)
        self.counted, self.checked = budget.counted, budget.checked
        self._own = (self.counted, self.checked, self.joined)

    def render(self, template: jinja2.Template, values: Mapping[str, Any]) -> str:
        """Render within the limits. Raises jinja2.TemplateError or what a broken template's own code runs into."""
        self.budget.renew()
        parts, total = [], 0
        for part in template.generate(dict(values)):
            self.budget.spend()
            total += len(part)
            self.budget.require(total)
            parts.append(part)
        return "".join(parts)

    def concat(self, parts: Iterable[str]) -> str:
        """What blocks, macros and `{% set %}` collect."""
        found, total = [], 0
        for part in parts:
            total += len(part)
            self.budget.require(total)
            self.budget.spend(1 + len(part) // _CHARACTERS_A_UNIT)
            found.append(part)
        return "".join(found)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """Call within the limits."""
        if __obj in __self._own:
            return __obj(*args)
        __self.budget.before_call(__obj, [*args, *kwargs.values()])
        return __self.budget.checked(super().call(__context, __obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute within the limits."""
        self.budget.before_operator(operator, left, right)
        return self.budget.checked(super().call_binop(context, operator, left, right))

    def joined(self, *parts: Any) -> str:
        """Jinja's `~`, within the limits."""
        texts = [str(part) for part in parts]
        self.budget.require(sum(map(len, texts)))
        self.budget.spend(1 + sum(map(len, texts)) // _CHARACTERS_A_UNIT)
        return "".join(texts)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        _rewrite(tree)
        return tree


_FORBIDDEN = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)


def _rewrite(node: nodes.Node) -> None:
    """Route loops, displays and `~` below `node` through the budget."""
    for field, value in node.iter_fields():
        if isinstance(value, list):
            setattr(node, field, [_rewritten(one) if isinstance(one, nodes.Node) else one for one in value])
        elif isinstance(value, nodes.Node):
            setattr(node, field, _rewritten(value))


def _rewritten(node: nodes.Node) -> nodes.Node:
    if isinstance(node, _FORBIDDEN):
        raise jinja2.TemplateSyntaxError("it reads another template", node.lineno)
    _rewrite(node)
    if isinstance(node, nodes.For):
        if node.recursive:
            raise jinja2.TemplateSyntaxError("it has a recursive loop", node.lineno)
        node.iter = _through("counted", [node.iter], node.lineno)
    elif isinstance(node, nodes.Concat):
        return _through("joined", node.nodes, node.lineno)
    return _through("checked", [node], node.lineno) if _makes_a_value(node) else node


def _makes_a_value(node: nodes.Node) -> bool:
    if isinstance(node, nodes.Getitem):
        return isinstance(node.arg, nodes.Slice)
    return isinstance(node, nodes.List | nodes.Dict) or (isinstance(node, nodes.Tuple) and node.ctx == "load")


def _through(method: str, arguments: list[Any], line: int) -> nodes.Call:
    """A call of the environment's own `method`."""
    return nodes.Call(nodes.EnvironmentAttribute(method, lineno=line), arguments, [], None, None, lineno=line)


class _Generation(Extension):
    """`{% generation %} ... {% endgeneration %}`: transformers' mark around what the assistant says."""

    tags = {"generation"}  # noqa: RUF012 - as jinja declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Put a stand-in before and after what is between."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        begin, end = (
            nodes.Output([nodes.TemplateData(mark)], lineno=line) for mark in (BEGIN_ASSISTANT, END_ASSISTANT)
        )
        return [begin, *body, end]


class _PlainNamespace(Namespace):
    """`namespace()` without names that begin with an underscore, which lead into Python's insides."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, values = args[0], dict(*args[1:], **kwargs)
        for name in values:
            _require_plain(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _require_plain(name)
        super().__setitem__(name, value)


def _require_plain(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"names that begin with an underscore are not for templates: {name}")


def _plain_dict(*args: Any, **kwargs: Any) -> dict[Any, Any]:
    """`dict()`, but not the type itself, which has methods of its own."""
    return dict(*args, **kwargs)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _tojson(  # transformers' own, which does not escape HTML as Jinja's does
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _counted_filter(name: str, function: Callable[..., Any], budget: Budget) -> Callable[..., Any]:
    """The same filter within the limits; jinja's flags on it (who wants the environment first) stay."""
    skipped = 1 if hasattr(function, "jinja_pass_arg") else 0

    @functools.wraps(function)
    def within_limits(*args: Any, **kwargs: Any) -> Any:
        value, *rest = args[skipped:]
        budget.before_filter(name, value, [*rest, *kwargs.values()])
        return budget.checked(function(*args, **kwargs))

    return within_limits
