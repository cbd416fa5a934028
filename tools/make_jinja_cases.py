#!/usr/bin/env python3
"""Writes tests/text/jinja_cases.json: small templates, and the lines of jinja_expressions.txt, with what
jinja2 makes of them.

usage: tools/make_jinja_cases.py [OUT]

The environment is the one of transformers' apply_chat_template (utils/chat_template_utils.py):
ImmutableSandboxedEnvironment, trim_blocks, lstrip_blocks, loop controls, the generation block, and its
own tojson, raise_exception and strftime_now. Needs python3-jinja2 (3.1).
"""
import datetime
import itertools
import json
import sys
from pathlib import Path

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

NOW = datetime.datetime(2024, 2, 29, 7, 5, 9)


class Generation(Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


ENV = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
ENV.filters["tojson"] = tojson
ENV.globals["raise_exception"] = raise_exception
ENV.globals["strftime_now"] = NOW.strftime

CONTEXT = {
    "a": "apple", "b": "Banana split", "e": "", "u": "Grüße, 世界 😀!", "sp": "  two  words \n", "ml": "one\ntwo\r\nthree\n\nfive",
    "html": "<a href=\"x\">'q' & r</a>", "i": 7, "n": -3, "z": 0, "f": 2.5, "big": 9007199254740993, "t": True, "fa": False, "no": None,
    "nums": [3, 1, 2, 3], "words": ["pear", "Apple", "fig", "apple"], "mixed": [1, "two", 3.0, None, True, [4], {"k": "v"}],
    "empty": [], "d": {"x": 1, "y": [2, 3], "items": "shadow", "z w": None}, "ed": {}, "nested": {"a": {"b": {"c": "deep"}}, "l": [[1, 2], [3]]},
    "people": [{"name": "Bo", "age": 30, "tags": ["x"]}, {"name": "al", "age": 25, "tags": []}, {"name": "Cy", "age": 30}],
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Hi <b>"}]},
                 {"role": "assistant", "content": "Yes", "tool_calls": [{"function": {"name": "f", "arguments": {"p": 1, "q": "ü\"\n"}}}]}],
    "bos_token": "<s>", "strftime_now": NOW.isoformat(),
}

# One expression per line, printed with {{ }}.
EXPRESSIONS = (Path(__file__).parent.parent / "tests/text/jinja_expressions.txt").read_text(encoding="utf-8").splitlines()

# Whole templates.
TEMPLATES = [
    "", "plain", "line\n", "line\n\n", "a\r\nb\r\n", "a\rb", "{{ a }}\n", "{{ a }}\n\n", " {{ a }} ", "{", "{}", "{ {", "}}", "%}", "{ % if %}",
    "{% if t %}yes{% endif %}", "{% if fa %}yes{% else %}no{% endif %}", "{% if fa %}1{% elif t %}2{% else %}3{% endif %}",
    "{% if fa %}1{% elif fa %}2{% elif e %}3{% endif %}|", "{% if x %}1{% endif %}", "{% if x.y %}1{% endif %}", "{% if not x %}1{% endif %}",
    "{% if t: %}a{% endif %}", "{% if 1, 2 %}a{% endif %}", "{% if %}a{% endif %}", "{% if t %}", "{% endif %}", "{% if t %}{% endfor %}", "{% else %}",
    # White space control.
    "a\n{% if t %}\nb\n{% endif %}\nc", "a\n  {% if t %}\n  b\n  {% endif %}\n  c", "a {% if t %} b {% endif %} c", "  {% if t %}x{% endif %}  ",
    "a  {%- if t %}  b  {%- endif %}  c", "a  {% if t -%}  b  {% endif -%}  c", "a  {%- if t -%}  b  {%- endif -%}  c",
    "a\n  {%+ if t %}b{% endif %}", "a\n  {%+ if t +%}\nb{% endif +%}\nc", "{% if t +%}\nb{% endif %}", "{% if t %}\n\n\nb{% endif %}",
    "a \n {{- a -}} \n b", "a \n {{ a -}} \n b", "a \n {{- a }} \n b", "  {{ a }}\n  {{ b }}\n", "  {{- a }}", "x{{+ a }}", "{{ i -}}", "{{ i - 1 }}", "{{- i -}}",
    "a\n  {# comment #}\nb", "a\n  {#- comment -#}\n  b", "a {# c #} b", "{# c #}\n\nb", "{#+ c +#}\nb", "  {# a #}  {# b #}  \nc", "{# {{ x }} {% if %} #}", "{#-#}a", "{#--#}a", "{##}a", "{# a", "{# a -#}\n\n b",
    "\t{% if t %}\tx\t{% endif %}\t\n", "x\n\t {% set q = 1 %}\t\ny", "{% set q = 1 %}\n{{ q }}", "{% set q = 1 -%}\n\n {{ q }}", "\n\n  {%- set q = 1 %}\n{{ q }}",
    "{% for n in nums %}\n{{ n }}\n{% endfor %}", "{% for n in nums -%}\n{{ n }}\n{%- endfor %}", "<ul>\n  {% for n in nums %}\n  <li>{{ n }}</li>\n  {% endfor %}\n</ul>\n",
    "{% raw %}{{ a }}{% endraw %}", "{% raw %}\n{{ a }}\n{% endraw %}\nb", "a {%- raw -%} {{ x }} {%- endraw -%} b", "  {% raw %}  x\n  {% endraw %}  y", "{%raw%}{% if %}{%endraw%}", "{% raw %} {% endraw -%}  z", "{%- raw %}  {% endraw %}", "{% raw +%}x{% endraw %}", "{% raw %}{# x #}{% endraw +%}\nq",
    "\u00a0{%- if t -%}\u2003x\u2003{%- endif -%}\u00a0", "x\n\u00a0{% if t %}y{% endif %}", "{{ a }}\n{% if t %}\n{% endif %}\n{{ b }}", "{{\n a \n}}", "{%\nif\nt\n%}x{%\nendif\n%}",
    "a{% if t %}\r\n b{% endif %}\r\n", "{{ 'a\nb' }}", "{{ 'a\r\nb' }}",
    # Loops.
    "{% for n in nums %}{{ n }},{% endfor %}", "{% for n in nums %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }} {% endfor %}",
    "{% for n in nums %}{{ loop.previtem }}<{{ n }}>{{ loop.nextitem }} {% endfor %}", "{% for n in nums %}{{ loop.previtem is defined }}{{ loop.nextitem is defined }} {% endfor %}",
    "{% for n in nums %}{{ loop.cycle('a', 'b') }}{% endfor %}", "{% for n in nums %}{{ loop.changed(n > 2) }}{% endfor %}", "{% for n in nums %}{{ loop.depth }}{{ loop.depth0 }}{% endfor %}", "{% for n in nums %}{{ loop }}{% endfor %}", "{% for n in nums %}{{ loop|length }}{% endfor %}",
    "{% for n in empty %}x{% else %}none{% endfor %}", "{% for n in nums %}{{ n }}{% else %}none{% endfor %}", "{% for n in x %}x{% else %}none{% endfor %}", "{% for n in x.y %}x{% endfor %}", "{% for n in none %}x{% endfor %}", "{% for n in 5 %}x{% endfor %}",
    "{% for n in nums if n > 1 %}{{ loop.index }}/{{ loop.length }}:{{ n }} {% endfor %}", "{% for n in nums if n > 9 %}x{% else %}none{% endfor %}", "{% for n in nums if loop.first %}x{% endfor %}",
    "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", "{% for k, v in d|items %}{{ k }}={{ v }};{% endfor %}", "{% for k in d %}{{ k }};{% endfor %}", "{% for k, v in d|dictsort %}{{ k }}={{ v }};{% endfor %}",
    "{% for (k, v) in d.items() %}{{ k }}{% endfor %}", "{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}", "{% for a, b in [(1, 2, 3)] %}{% endfor %}", "{% for a, b in [(1,)] %}{% endfor %}", "{% for a, b in [1] %}{% endfor %}", "{% for a, b in ['xy'] %}{{ b }}{{ a }}{% endfor %}",
    "{% for c in a %}{{ c }}.{% endfor %}", "{% for c in u %}{{ c }}.{% endfor %}", "{% for n in range(3) %}{{ n }}{% endfor %}", "{% for n in 1, 2 %}{{ n }}{% endfor %}", "{% for n in nums[1:] %}{{ n }}{% endfor %}", "{% for n in nums|reverse %}{{ n }}{{ loop.revindex }}{% endfor %}",
    "{% for n in nums %}{% if n == 1 %}{% break %}{% endif %}{{ n }}{% endfor %}", "{% for n in nums %}{% if n == 1 %}{% continue %}{% endif %}{{ n }}{% endfor %}", "{% for n in nums %}{% for m in nums %}{% if m == 2 %}{% break %}{% endif %}{{ m }}{% endfor %};{% endfor %}",
    "{% for n in nums %}{% break %}{% else %}none{% endfor %}|", "{% for i in [1] %}{% for n in empty %}{% else %}{% break %}{% endfor %}x{% endfor %}|", "{% break %}", "{% continue %}",
    "{% for n in nums %}{% for m in nums %}{{ loop.index }}{% endfor %}-{{ loop.index }} {% endfor %}", "{% for n in nums %}{% set outer = loop %}{% for m in nums %}{{ outer.index }}{{ loop.index }} {% endfor %}{% endfor %}",
    "{% for l in nested.l recursive %}[{% if l is iterable %}{{ loop(l) }}{% else %}{{ l }}{% endif %}]{% endfor %}", "{% for l in nested.l recursive %}{{ loop.depth }}{% if l is sequence %}({{ loop(l) }}){% endif %}{% endfor %}", "{% for n in nums %}{{ loop(nums) }}{% endfor %}",
    "{% for n in nums %}{{ n }}{% endfor %}{{ n }}", "{% for z in nums %}{% endfor %}{{ z }}", "{% for loop in nums %}{% endfor %}",
    # Scopes.
    "{% set q = 1 %}{% for n in nums %}{% set q = q + n %}{{ q }} {% endfor %}{{ q }}", "{% for n in nums %}{{ q }}{% set q = n %}{{ q }};{% endfor %}", "{% if t %}{% set q = 5 %}{% endif %}{{ q }}", "{% set a = 'new' %}{{ a }}", "{% set a = a ~ '!' %}{{ a }}",
    "{% set ns = namespace(v=0) %}{% for n in nums %}{% set ns.v = ns.v + n %}{% endfor %}{{ ns.v }}", "{% set ns = namespace() %}{% set ns.x = 1 %}{{ ns.x }}{{ ns.y }}|", "{% set ns = namespace(l=[]) %}{% for n in nums %}{% set ns.l = ns.l + [n * 2] %}{% endfor %}{{ ns.l }}", "{% set d.x = 5 %}", "{% set nope.x = 5 %}", "{% set ns = namespace(a=1) %}{{ ns }}", "{% set ns = namespace(a=1) %}{{ ns['a'] }}{{ ns.a is defined }}{{ ns.b is defined }}",
    "{% set q, r = 1, 2 %}{{ q }}{{ r }}", "{% set q, r = 'xy' %}{{ q }}{{ r }}", "{% set (q, r) = [1, 2] %}{{ q }}{{ r }}", "{% set q, r = 1 %}", "{% set q = 1, 2 %}{{ q }}", "{% set q = 'a' if fa else 'b' %}{{ q }}", "{% set q %}body {{ a }}{% endset %}{{ q }}|{{ q|length }}", "{% set q | upper %}body {{ a }}{% endset %}{{ q }}", "{% set q | replace('b', 'c') | upper %}body{% endset %}{{ q }}", "{% set q %}{% set r = 1 %}{{ r }}{% endset %}{{ q }}{{ r }}", "{% set ns = namespace() %}{% set ns.q %}x{% endset %}{{ ns.q }}",
    "{% set 1 = 2 %}", "{% set q %}", "{% set true = 1 %}", "{% set q = %}", "{% set = 1 %}",
    "{% with q = 1 %}{{ q }}{% endwith %}{{ q }}", "{% with q = 1, r = 2 %}{{ q }}{{ r }}{% endwith %}", "{% with %}{% set q = 1 %}{{ q }}{% endwith %}{{ q }}", "{% set q = 1 %}{% with q = q + 1, r = q %}{{ q }}{{ r }}{% endwith %}{{ q }}",
    "{% set x %}{% for n in nums %}{{ n }}{% endfor %}{% endset %}{{ x }}",
    # Macros.
    "{% macro m() %}hi{% endmacro %}{{ m() }}", "{% macro m(p) %}[{{ p }}]{% endmacro %}{{ m(1) }}{{ m() }}{{ m(p=2) }}", "{% macro m(p, q=2) %}{{ p }}{{ q }}{% endmacro %}{{ m(1) }} {{ m(1, 3) }} {{ m(q=4, p=5) }}", "{% macro m(p, q=p) %}{{ q }}{% endmacro %}{{ m(7) }}", "{% macro m(p) %}{{ p is defined }}{% endmacro %}{{ m() }}{{ m(none) }}", "{% macro m() %}{% endmacro %}{{ m(1) }}", "{% macro m() %}{% endmacro %}{{ m(p=1) }}", "{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, k=3) }}", "{% macro m(p) %}{{ p.q }}{% endmacro %}{{ m() }}",
    "{% macro m(n) %}{% if n > 0 %}{{ n }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(4) }}", "{% macro m() %}{{ q }}{% endmacro %}{% set q = 1 %}{{ m() }}{% set q = 2 %}{{ m() }}", "{% macro m() %}{% set q = 5 %}{{ q }}{% endmacro %}{{ m() }}{{ q }}", "{% for n in nums %}{% macro m() %}{{ n }}{% endmacro %}{{ m() }}{% endfor %}", "{% macro m() %}\n  x\n{% endmacro %}[{{ m() }}]", "{% macro m() -%}\n  x\n{%- endmacro %}[{{ m() }}]", "{% macro m(p) %}{{ p }}{% endmacro %}{{ m('<') ~ '>' }}{{ m(1) + 'x' }}{{ m(1)|int + 1 }}", "{{ m() }}{% macro m() %}x{% endmacro %}", "{% macro m() %}x{% endmacro %}{{ m }}", "{% macro m(p, q=1) %}{% endmacro %}{{ m.name }}{{ m.arguments }}",
    "{% macro m() %}<{{ caller() }}>{% endmacro %}{% call m() %}body {{ a }}{% endcall %}", "{% macro m() %}{% for n in nums %}{{ caller(n) }}{% endfor %}{% endmacro %}{% call(v) m() %}[{{ v }}]{% endcall %}", "{% macro m() %}x{% endmacro %}{% call m() %}y{% endcall %}", "{% macro m() %}{{ caller is defined }}{% endmacro %}{{ m() }}", "{% call 1 %}{% endcall %}", "{% macro m(p) %}{{ p }}{{ caller() }}{% endmacro %}{% call m(p='q') %}b{% endcall %}", "{% macro m(a, b) %}{{ a }}{{ b }}{% endmacro %}{{ m(*[1, 2]) }}{{ m(**{'a': 3, 'b': 4}) }}{{ m(5, *[6]) }}", "{% macro m(p=1, q) %}{% endmacro %}", "{% macro m(p %}{% endmacro %}", "{% macro %}{% endmacro %}",
    "{% macro outer(l) %}{% macro inner(v) %}({{ v }}){% endmacro %}{% for v in l %}{{ inner(v) }}{% endfor %}{% endmacro %}{{ outer(nums) }}",
    # Filter blocks, generation and others.
    "{% filter upper %}a {{ a }}{% endfilter %}", "{% filter replace('a', 'b')|upper %}banana{% endfilter %}", "{% filter nope %}x{% endfilter %}", "{% generation %}a {{ a }}{% endgeneration %}", "{% for n in nums %}{% generation %}{{ n }}{{ loop.index }}{% endgeneration %}{% endfor %}", "{% generation %}{% set q = 1 %}{{ q }}{% endgeneration %}{{ q }}", "a\n{% generation %}\nb\n{% endgeneration %}\nc",
    "{% print a, b %}", "{% do a %}", "{% nope %}", "{% if t %}{% nope %}{% endif %}", "{% %}", "{{ }}", "{{ a", "{% if t", "{{ a %}", "{% set a = {'x': {'y': 1}} %}{{ a.x.y }}", "{{ {'a': {'b': 1}}['a']['b'] }}", "{{ {'a': {'b': 1}} }}", "{{ (1 }}", "{{ 1) }}", "{{ [1} }}",
    "{{ x|nope if x else 1 }}", "{% if fa %}{{ a|nope }}{% endif %}ok", "{% if t %}{{ a|nope }}{% endif %}ok", "{% if fa %}{% for i in nums %}{{ a|nope }}{% endfor %}{% endif %}ok", "{{ 1 if t else a|nope }}", "{{ a is nope if fa else 2 }}",
    "{% set c = cycler('x', 'y') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.reset() }}{{ c.current }}", "{% set j = joiner('|') %}{% for n in nums %}{{ j() }}{{ n }}{% endfor %}", "{% set j = joiner() %}{{ j() }}{{ j() }}",
    "{% set g = nums|map('string') %}{{ g|join }}{{ g|join }}|", "{% set g = nums|select('odd') %}{{ g|first }}{{ g|list }}", "{% set g = words|unique %}{% for w in g %}{{ w }}{% endfor %}{% for w in g %}{{ w }}{% endfor %}", "{% for w in words|map('upper') %}{{ loop.index }}{{ loop.last }}{{ w }}{% endfor %}", "{% for w in words|map('upper') %}{{ loop.length }}{% endfor %}",
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set sys = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% endif %}{{ sys }}{% for m in loop_messages %}<{{ m.role }}>{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}{% if p.type == 'image' %}[IMG]{% else %}{{ p.text }}{% endif %}{% endfor %}{% endif %}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}",
    "{{ bos_token }}{% for m in messages %}{{ '<|' + m['role'] + '|>\\n' + (m['content'] if m['content'] is string else m['content']|map(attribute='text')|select('defined')|join) + '\\n' }}{% endfor %}", "{%- for message in messages %}\n    {%- if message.role == 'user' %}\n        {{- '[INST] ' }}\n        {%- for c in message.content %}\n            {%- if c.type == 'text' %}\n                {{- c.text | trim }}\n            {%- endif %}\n        {%- endfor %}\n        {{- ' [/INST]' }}\n    {%- endif %}\n{%- endfor %}\n",
    "{% if tools is defined and tools %}T{% endif %}{{ tools }}", "{% if tools is none %}none{% endif %}", "{% for m in messages %}{% if m.tool_calls is defined and m.tool_calls %}{% for c in m.tool_calls %}{{ c.function.name }}({{ c.function.arguments|tojson }}){% endfor %}{% endif %}{% endfor %}", "{% if (messages[0].role == 'user') != (z % 2 == 0) %}{{ raise_exception('roles') }}{% endif %}",
    "{% set m = messages|selectattr('role', 'equalto', 'user')|list %}{{ (m|last).role }}{{ m[-1] == messages[1] }}", "{% set s = 'a' %}{% set s = s + 'b' %}{% if true %}{% set s = s + 'c' %}{% endif %}{{ s }}", "{% for x in [1,2] %}{% if loop.first %}{% set y = x %}{% endif %}{{ y }}{% endfor %}", "{{ '\\n'.join(['a', 'b']) }}", "{{ 'a' ~ '\\n' }}\n{{ 'b' }}\n",
    "{% for g in people|groupby('age') %}{{ g.grouper }}:{% for p in g.list %}{{ p.name }}{% endfor %};{% endfor %}", "{% for age, ps in people|groupby('age') %}{{ age }}:{{ ps|length }};{% endfor %}", "{% for row in nums|batch(2) %}{{ row|join(',') }};{% endfor %}", "{% for k, v in {'b': 1, 'a': 2}.items()|sort %}{{ k }}{{ v }}{% endfor %}", "{% for k in d.keys()|sort %}{{ k }},{% endfor %}",
    "{% include 'x' %}", "{% extends 'x' %}", "{% import 'x' as y %}", "{% from 'x' import y %}",
]


def whitespace_templates():
    """Every mix of signs on two tags, with and without line ends around them."""
    for tag, end in (("{%S if t E%}", "{%S endif E%}"), ("{#S c E#}", "{#S d E#}"), ("{{S a E}}", "{{S i E}}")):
        for first, second in itertools.product(("", "-", "+"), repeat=2):
            if "+" in (first, second) and tag.startswith("{{"):
                continue
            opened = tag.replace("S", first).replace("E", second)
            closed = end.replace("S", second).replace("E", first)
            for gap in ("\n", " \n ", "  ", "\n\n"):
                yield f"x{gap}{opened}{gap}y{gap}{closed}{gap}z"


def main():
    out = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent / "tests/text/jinja_cases.json")
    context = {k: v for k, v in CONTEXT.items() if k != "strftime_now"}
    cases, seen = [], set()
    for source in itertools.chain(("{{ " + e + " }}" for e in EXPRESSIONS), TEMPLATES, whitespace_templates()):
        if source in seen:
            continue
        seen.add(source)
        case = {"template": source}
        try:
            case["rendered"] = ENV.from_string(source).render(tools=None, documents=None, add_generation_prompt=False, **json.loads(json.dumps(context)))
            if " at 0x" in case["rendered"] or "<function" in case["rendered"]:
                continue  # an address: no fixed text
        except Exception as error:
            case["error"] = f"{type(error).__name__}: {error}"
        cases.append(case)
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    out.write_text('{"jinja2": "%s",\n"context": %s,\n"cases": [\n%s\n]}\n' % (jinja2.__version__, json.dumps(CONTEXT, ensure_ascii=False), lines), encoding="utf-8")
    print(len(cases), "cases,", sum("error" in case for case in cases), "errors ->", out)


if __name__ == "__main__":
    main()
