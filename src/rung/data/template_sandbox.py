"""A Jinja environment for other people's templates: no attribute tricks, no files, no work without end.

A chat template is a program. Jinja's sandbox keeps it from Python's insides (CVE-2024-34359 was a template rendered
without one) but lets it loop for hours or double a string until memory is gone. So the syntax tree is rewritten before
it is compiled: every turn of a loop, call, filter, operator, comparison and display goes through `Budget`, which counts
work and refuses values that are too large before they are made. Of the methods of texts only those are there whose
result can be foreseen. Behind the count stands a clock.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range
from jinja2.utils import Namespace

from rung.data.template_budget import Budget, TemplateLimitError

_LONGEST_DATE = 200  # characters of a date's form; C's own widths are in it
BEGIN_ASSISTANT, END_ASSISTANT, BREAK = "\ufdd0", "\ufdd1", "\ufdd2"
"""Stand-ins in rendered text: Unicode's noncharacters, which no text may be interchanged with.

Around what the assistant says, and inside a special token's spelling in a message, so that it makes no special token.
"""

_FILTERS = frozenset({
    "abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float", "indent", "int", "items",
    "join", "last", "length", "list", "lower", "map", "max", "min", "reject", "rejectattr", "replace", "reverse",
    "round", "safe", "select", "selectattr", "sort", "string", "sum", "title", "trim", "unique", "upper", "wordcount",
})  # fmt: skip


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja as transformers sets it up for chat templates, with limits and without a loader.

    `now` is what `strftime_now` tells; None for the time of the call.
    """

    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self, *, now: datetime | None = None) -> None:
        self.budget = Budget()
        # Not optimised: constant expressions would be computed while compiling, outside of any budget.
        extensions = [_Generation, loopcontrols]
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=extensions, optimized=False, finalize=_shown)
        budget = self.budget

        def strftime_now(form: str) -> str:
            if len(form) > _LONGEST_DATE:
                raise TemplateLimitError(f"it writes the date by a form of more than {_LONGEST_DATE} characters")
            return (now or datetime.now()).strftime(form)

        self.globals = {
            "range": safe_range,
            "dict": _plain_dict,
            "namespace": _PlainNamespace,
            "raise_exception": _raise_exception,
            "strftime_now": strftime_now,
        }
        self.filters = {name: _counted_filter(name, self.filters[name], budget) for name in _FILTERS}
        self.filters["tojson"] = _counted_filter("tojson", _tojson_within(budget), budget)
        self.counted, self.checked, self.compared = budget.counted, budget.checked, budget.compared
        self._own = (self.counted, self.checked, self.compared, self.joined)

    def render(self, template: jinja2.Template, values: Mapping[str, Any]) -> str:
        """Render within the limits. Raises jinja2.TemplateError or what a broken template's own code runs into."""
        self.budget.renew()
        return self.budget.collected(template.generate(dict(values)))

    def concat(self, parts: Iterable[str]) -> str:
        """What blocks, macros and `{% set %}` collect."""
        return self.budget.collected(parts)

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
        return self.concat(map(str, parts))

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
    elif isinstance(node, nodes.Compare):
        return _through("compared", [node, nodes.Const(len(node.ops), lineno=node.lineno)], node.lineno)
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

    def __repr__(self) -> str:  # jinja's shows the values, however large
        return "<namespace>"


def _require_plain(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"names that begin with an underscore are not for templates: {name}")


def _plain_dict(*args: Any, **kwargs: Any) -> dict[Any, Any]:
    """`dict()`, but not the type itself, which has methods of its own."""
    return dict(*args, **kwargs)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _tojson_within(budget: Budget) -> Callable[..., str]:
    """transformers' own filter, which does not escape HTML as Jinja's does."""

    def tojson(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        encoder = json.JSONEncoder(ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
        return budget.collected(encoder.iterencode(value))  # part by part: indents and separators are the template's

    return tojson


@jinja2.pass_context  # so that jinja leaves it to the rendering, where the budget is
def _shown(context: Context, value: Any) -> Any:
    """What `{{ value }}` writes, counted: blocks and macros keep all of it until they end."""
    environment = context.environment
    assert isinstance(environment, Sandbox)  # noqa: S101 - for the type checker
    return environment.budget.collected([value if isinstance(value, str) else str(value)])


def _counted_filter(name: str, function: Callable[..., Any], budget: Budget) -> Callable[..., Any]:
    """The same filter within the limits; jinja's flags on it (who wants the environment first) stay."""
    skipped = 1 if hasattr(function, "jinja_pass_arg") else 0

    def within_limits(*args: Any, **kwargs: Any) -> Any:
        value, *rest = args[skipped:]
        budget.before_filter(name, value, rest, kwargs)
        return budget.checked(function(*args, **kwargs))

    return functools.update_wrapper(within_limits, function)
