"""Hostile templates end quickly with an error; whatever real ones use works."""

from __future__ import annotations

import sys

import pytest

from rung.data.chat_template import ChatTemplate
from rung.data.conversations import Message
from rung.errors import TokenizerError

TALK = [Message("user", "hi"), Message("assistant", "ho")]
LOOP = "{% for i in range(900) %}"
DOUBLING = "{% set ns = namespace(x=START) %}{% for i in range(100) %}{% set ns.x = STEP %}{% endfor %}"


def stopped(source: str) -> str:
    """How `source` is stopped."""
    with pytest.raises(TokenizerError) as caught:
        ChatTemplate(source).render(TALK)
    return caught.value.problem


def by_work(problem: str) -> bool:
    """By the count of work, or on a very busy machine by the clock that stands behind it."""
    return "loops or calls" in problem or "seconds" in problem


@pytest.mark.parametrize(
    "source",
    [
        LOOP * 4 + "{% endfor %}" * 4,
        LOOP * 3 + "x" + "{% endfor %}" * 3,
        "{% set ns = namespace(x='ab' * 900000) %}" + LOOP * 2 + "{% if ns.x == ns.x[:-1] + 'b' %}{% endif %}"
        "{% endfor %}{% endfor %}",
    ],
)
def test_loops_end(source: str) -> None:
    assert by_work(stopped(source))


def test_recursion_ends() -> None:
    twice = "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}"
    assert by_work(stopped(twice + "{{ f(60) }}"))
    assert "RecursionError" in stopped("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}")
    assert "recursive loop" in stopped("{% for m in messages recursive %}{{ loop(m) }}{% endfor %}")


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'a' * 10**7 }}",
        "{{ [1] * 10**7 }}",
        DOUBLING.replace("START", "'ab'").replace("STEP", "ns.x ~ ns.x"),
        DOUBLING.replace("START", "'ab'").replace("STEP", "ns.x + ns.x"),
        DOUBLING.replace("START", "[1]").replace("STEP", "[ns.x, ns.x]"),
        DOUBLING.replace("START", "[1]").replace("STEP", "(ns.x, ns.x)") + "{{ ns.x | tojson }}",
        DOUBLING.replace("START", "[1]").replace("STEP", "{'a': ns.x, 'b': ns.x}"),
        DOUBLING.replace("START", "'ab'").replace("STEP", "ns.x.replace('a', ns.x)"),
        DOUBLING.replace("START", "'ab'").replace("STEP", "ns.x | replace('b', ns.x)"),
        DOUBLING.replace("START", "'ab'").replace("STEP", "ns.x.join([ns.x, ns.x, ns.x])"),
        "{{ range(900) | list | join('a' * 9000) }}",
        "{{ range(100000) | join('a' * 9000) }}",
        "{{ messages[0].items() | join('a' * 1900000) }}",
        "{{ messages | map('length') | join('a' * 1900000) }}",
        "{{ ('a' * 2000) | join('b' * 2000) }}",
        "{{ ('a' * 2000).join('b' * 2000) }}",
        "{{ [1, 2, 3] | join(attribute='x', d='a' * 1900000) }}",
        "{{ ('a' * 2000) | replace(new='b' * 2000, old='a') }}",
        "{{ ('a\\x0b' * 2000) | indent('b' * 2000) }}",
        "{{ ('a\\n' * 2000) | indent(first=true, width='b' * 2000) }}",
        "{{ ('{0}' * 900).format('a' * 9000) }}",
        "{{ (('{0}' * 900) | safe).format('a' * 9000) }}",
        "{{ ('{:>999}' * 1400).format(*range(900)) }}",
        "{{ ('%(a)s' * 900) % {'a': 'a' * 9000} }}",
        "{{ [1, 2, 3, 4] | tojson(separators=('a' * 900000, ':')) }}",
        "{% set ns = namespace(x=[1] * 900) %}" + LOOP.replace("900", "90") + "{% set ns.x = [ns.x] %}{% endfor %}"
        "{{ ns.x | tojson(indent=1000) }}",
        "{% set ns = namespace(x='a' * 9000) %}{{ ([ns] * 900) | join(attribute='x') }}",
        "{% set x = ['a' * 900000] %}{% set y %}{{ x }}{{ x }}{{ x }}{% endset %}",
        "{% set x = ['a' * 900000] %}{{ x ~ x ~ x }}",
        "{{ ('a' * 1900000) | list }}",
    ],
)
def test_giants_are_refused_before_they_are_made(source: str) -> None:
    assert "value of more than" in stopped(source)


def test_a_text_of_many_pieces_ends() -> None:
    pieces = LOOP * 2 + "{{ 'abcdefgh' }}" + "{% endfor %}" * 2
    for source in (pieces, "{% set x %}" + pieces + "{% endset %}"):
        problem = stopped(source)
        assert by_work(problem) or "value of more than" in problem


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("{{ 'a'.center(10**9) }}", "number 1000000000"),
        ("{{ 'a'.ljust(99999) }}", "number 99999"),
        ("{{ '%099999d' % 1 }}", "width"),
        ("{{ '{:099999}'.format(1) }}", "width"),
        ("{{ '%*d' % (99999, 1) }}", "width"),
        ("{{ '%(a)099999d' % {'a': 1} }}", "width"),
        ("{{ '{:{w}}'.format('a', w='99999') }}", "width"),
        ("{{ '{:{a}{b}}'.format('a', a='99', b='99') }}", "width"),
        ("{{ '{a[}]:99999}'.format(a={'}': 'x'}) }}", "width"),
        ("{{ ('%s' * 9000) % 1 }}", "more than 10,000 characters"),
        ("{{ strftime_now('%d' * 200) }}", "form of more than"),
        ("{{ 'a'.encode() }}", "encode"),
        ("{{ (5).to_bytes(2, 'big') }}", "bytes"),
        ("{{ 'a\\t'.expandtabs(900) }}", "expandtabs"),
        ("{{ 2 ** 9999 }}", "power"),
        ("{{ 2 ** 60 * 99 }}", "64 bits"),
        ("{{ 'a'.translate({97: 'b'}) }}", "translate"),
    ],
)
def test_wide_formats_and_large_numbers(source: str, why: str) -> None:
    assert why in stopped(source)


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.__class__.__bases__[0].__subclasses__() }}",
        "{{ raise_exception.__globals__['sys'] }}",
        "{{ namespace.__init__.__globals__.os }}",
        "{{ namespace(__class__=1) }}",
        "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
        "{{ dict.__subclasses__() }}",
        "{{ dict.mro() }}",
        "{{ (messages | map('attr', '__class__') | list)[0] }}",
        "{{ messages | attr('__class__') }}",
        "{{ '{0.__class__.__mro__}'.format(messages) }}",
        "{{ lipsum.__globals__ }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ self._TemplateReference__context.environment }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{% extends 'other' %}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'role': 'system'}) }}",
        "{% set environment = 1 %}{{ environment.budget.left }}",
    ],
)
def test_nothing_leads_out_of_the_sandbox(source: str) -> None:
    try:
        rendered = ChatTemplate(source).render(TALK)
    except TokenizerError:
        return
    assert not rendered.strip()


def test_the_messages_stay_as_they_are() -> None:
    with pytest.raises(TokenizerError):
        ChatTemplate("{% set _ = messages[0].update({'content': 'x'}) %}").render(TALK)
    assert [message.content for message in TALK] == ["hi", "ho"]


@pytest.mark.parametrize(
    ("source", "rendered"),
    [
        ("{{ messages | map(attribute='role') | join(', ') }}", "user, assistant"),
        ("{{ (messages | selectattr('role', 'equalto', 'user') | list)[0].content | upper }}", "HI"),
        ("{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}", "2"),
        ("{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{{ m.content }}{% endfor %}", "hi"),
        ("{% for m in messages %}{% if m.role == 'user' %}{% continue %}{% endif %}{{ m.content }}{% endfor %}", "ho"),
        ("{{ messages[::-1][0].content }}{{ messages[-1]['content'][:1] }}", "hoh"),
        ("{{ {'é': [1, none]} | tojson }}", '{"é": [1, null]}'),
        ("{{ '<&>' | tojson }}", '"<&>"'),
        ("{{ {'b': 1} | tojson(indent=2) }}", '{\n  "b": 1\n}'),
        ("{{ '2024: %s' % 'x' }} {{ '{} {:>3}'.format('a', 'b') }}", "2024: x a   b"),
        ("{% macro say(m) %}[{{ m.content }}]{% endmacro %}{{ say(messages[0]) }}", "[hi]"),
        ("{{ 'a</think>b'.split('</think>')[-1].lstrip('\\n') }}", "b"),
        ("{{ dict(a=1).a }}{{ tools is none }}{{ x is defined }}{{ 'u' in 'user' }}", "1TrueFalseTrue"),
        ("{{ 'a\\nb' | indent(2) }}", "a\n  b"),
        ("{{ (5 % 3) * 2 + 2 ** 3 // 3 - 1 }}", "5"),
    ],
)
def test_what_real_templates_use(source: str, rendered: str) -> None:
    assert ChatTemplate(source).render(TALK) == rendered


def test_long_conversations_fit_the_budget() -> None:
    talk = [Message(("user", "assistant")[n % 2], "word " * 200) for n in range(600)]  # type: ignore[arg-type]
    source = "{% for m in messages %}{{ m.role + ': ' + m.content | trim }}{{ '\n' if not loop.last }}{% endfor %}"
    assert ChatTemplate(source).render(talk).count("\n") == 599


def test_a_broken_template_names_its_line() -> None:
    with pytest.raises(TokenizerError) as caught:
        ChatTemplate("{{ 1 }}\n{% if %}", where="here")
    assert caught.value.where == "here, line 2"
    with pytest.raises(TokenizerError, match="has 300,000 characters"):
        ChatTemplate("x" * 300_000)


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("{% break %}", "outside loop"),
        ("{{ " + "9" * 5000 + " }}", "digits"),
        ("{% for m in messages %}" * 25 + "{% endfor %}" * 25, "nested blocks"),
    ],
)
def test_what_pythons_compiler_refuses_is_told(source: str, why: str) -> None:
    with pytest.raises(TokenizerError, match=f"cannot be used: .*{why}"):
        ChatTemplate(source)


def test_comparisons_are_work() -> None:
    compared = "{% if 1 == 2 %}{% endif %}" * 400
    assert by_work(stopped(LOOP + compared + "{% endfor %}"))


def test_a_deeply_nested_template_is_refused() -> None:
    deep = sys.getrecursionlimit() * 2
    with pytest.raises(TokenizerError, match="cannot be used"):
        ChatTemplate("{{ " + "(" * deep + "1" + ")" * deep + " }}")
