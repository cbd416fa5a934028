#!/usr/bin/env python3
"""Writes tests/text/jinja_cases.json: small templates with what jinja2 makes of them.

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

# Expressions, printed with {{ }}.
EXPRESSIONS = r"""
1 + 2 * 3 - 4
(1 + 2) * 3
7 / 2
8 / 2
7 // 2
-7 // 2
7 // -2
7.5 // 2
-7.5 // 2
7 % 3
-7 % 3
7 % -3
-7.5 % 2
2 ** 10
2 ** -1
2 ** 3 ** 2
-2 ** 2
2 ** 0.5
i ** 2
+i
-i
- -i
+t
-t
-f
1 / 0
1 // 0
1 % 0
1.0 / 0
0 ** 0
0.1 + 0.2
1e3
1.5e-7
1e16
1e15
123456789012345678.0
1e22
1.0
100000.0
0.0001
0.00001
-0.0
1_000
0x1F
0b101
0o17
3.14159
5 // 2.0
True + True
true
false
none
None
True
1 == 1.0
1 == true
"1" == 1
"a" < "b"
"a" < "B"
"é" > "z"
1 < 2 < 3
1 < 3 < 2
3 > 2 >= 2
1 != 2
[1,2] == [1,2]
(1,2) == [1,2]
[1,2] < [1,3]
(1,) < (1,2)
{"a":1} == {"a":1.0}
none == none
none == false
"a" == none
1 < "a"
none < 1
[1] < 1
x < 1
i in nums
3 in nums
"pp" in a
"z" not in a
"x" in d
"k" in mixed
1 in "abc"
x in nums
"a" in x
none in [none]
2 in range(3)
5 in range(3)
not t
not x
not not a
t and a
e and a
e or a
e or z or no
a and 0
t or x.y
fa and x.y
not a == "b"
not i in nums
i not in nums and t
"yes" if t else "no"
"yes" if fa else "no"
"yes" if fa
"a" if fa else "b" if fa else "c"
("a" if t) ~ ("b" if fa)
a ~ b
a ~ 1 ~ none ~ true ~ 1.5 ~ [1]
a + b
a + 1
1 + a
a + none
a + x
x + a
a + [1]
[1] + a
[1] + [2]
(1,) + (2,)
[1] + (2,)
{} + {}
a * 2
2 * a
a * -1
a * 1.5
[1, 2] * 2
(1,) * 2
a - 1
a / 2
-a
"a" "b" 'c'
'it\'s'
"tab\there"
"new\nline"
"\x41\u00e9\U0001F600"
"\q\d"
"\101"
"back\\slash"
"quote\"d"
'{{ not a tag }}'
"%}"
"}}"
[]
[1, 'a', none, true, 1.5, [2], (3,), {}]
[1,]
()
(1,)
(1, 2)
(1, 2,)
1, 2
{}
{"a": 1, 'b': [2], 3: none}
{"a": 1,}
{"a": 1, "a": 2}
{1: "i", true: "t"}
{"q": 'it\'s', "r": "say \"x\"", "s": "both ' and \""}
["a\nb", "ü", "\x01", "\\"]
[0.1, 1e100, -0.0]
a[0]
a[-1]
a[10]
a[1:]
a[:-1]
a[::-1]
a[::2]
a[1:3]
a[-3:]
a[5:2]
a[:100]
a[-100:2]
a[4:1:-1]
a[::-2]
u[1]
u[-1]
u[2:4]
u[7]
u[-2:]
u[::-1]
u[8:]
nums[0]
nums[-1]
nums[9]
nums[1:]
nums[::-1]
nums[::-1][0]
nums[:2]
nums[-2:]
nums[10:]
nums[3:0:-2]
nums[1:-1]
nums[none:2]
nums["0"]
nums[1.5]
nums[::0]
nums["a":]
nums.0
nums.1.x
(1, 2, 3)[1:]
range(5)[1:3]
range(10)[::-1]
range(5)[-1]
none[0]
no[1:]
none.x
x[1:]
x.y
x["y"]
x()
i.x
i[0]
i()
a()
d.x
d["x"]
d.y[0]
d["z w"]
d.nope
d["nope"]
d.nope.more
d.items is callable
d["items"]
d.items()
d.keys()
d.values()
d.keys()|list
d.values()|list
d.items()|list
d.items()|length
d.keys()[0]
d.get("x")
d.get("q")
d.get("q", 5)
d.get()
d[none]
d[[1]]
d[1:]
d.copy()
nested.a.b.c
nested["a"]["b"]["c"]
nested.a.q.c
nested.l[0][1]
nested.l.0.1
messages[0].role
messages[-1]["role"]
messages[0]["content"]
messages[1].content[1].text
messages[9]
messages[9].role
messages[0].missing
messages[0].missing.more
messages|length
messages[1:]|length
messages[::-1]|map(attribute="role")|list
messages|selectattr("role", "equalto", "user")|list|length
messages|rejectattr("role", "eq", "system")|map(attribute="role")|join(",")
messages|map(attribute="content")|list
messages|map(attribute="content.0.type")|list
messages[2].tool_calls[0].function.arguments|tojson
messages[2].tool_calls[0].function.arguments|items|list
messages[2].tool_calls[0].function|tojson(indent=2)
a.upper()
a.lower()
a.title()
b.title()
b.capitalize()
b.swapcase()
"straße".upper()
"ΑΣ ΣΑΣ".lower()
"ǆ".title()
"they're bill's".title()
"they're bill's"|title
"a-b(c)[d]{e}<f> gH"|title
u.upper()
sp.strip()
sp.lstrip()
sp.rstrip()
sp.strip(" ")
"xxhixx".strip("x")
"xyhiyx".strip("xy")
"xyhi".lstrip("xy")
"hixy".rstrip("yx")
"\n\n hi \n".strip("\n")
"\u00a0hi\u2003".strip()
a.strip(none)
a.strip(1)
b.split()
b.split(" ")
b.split("n")
b.split("n", 1)
b.split(none, 1)
b.split(sep="a", maxsplit=1)
b.rsplit("a", 1)
b.rsplit(none, 1)
"a b  c ".rsplit()
"a,b,,c".split(",")
",a,".split(",")
"".split(",")
"".split()
a.split("")
"<think>x</think>y".split("</think>")[-1].lstrip("\n")
"<think>x</think>y".split("</think>")[0].rstrip("\n").split("<think>")[-1]
ml.splitlines()
ml.splitlines(true)
"a\u2028b\x0bc\x1cd".splitlines()
a.startswith("ap")
a.startswith("le", 3)
a.startswith("pp", 1, 2)
a.startswith(("x", "a"))
a.startswith(1)
a.endswith("le")
a.endswith(("x", "e"))
a.find("p")
a.find("p", 2)
a.rfind("p")
a.find("q")
u.find("世")
a.index("l")
a.index("q")
a.count("p")
a.count("")
a.replace("p", "q")
a.replace("p", "q", 1)
a.replace("", "-")
a.replace("pp", "")
"aaa".replace("aa", "b")
a.replace("p", 1)
", ".join(["a", "b"])
", ".join(words)
"-".join("abc")
"".join([1])
"-".join(x)
"-".join(d)
a.center(11)
a.center(10, "*")
"ab".center(5, ".")
"abc".center(6, ".")
a.ljust(8) ~ "|"
a.rjust(8)
"7".zfill(3)
"-7".zfill(4)
"abc".zfill(2)
a.partition("p")
a.rpartition("p")
a.partition("q")
"prefix-x".removeprefix("prefix-")
"x.txt".removesuffix(".txt")
"x".removeprefix("yy")
"12".isdigit()
"1.2".isdigit()
"".isdigit()
"²".isdigit()
"²".isdecimal()
"½".isnumeric()
"abc".isalpha()
"äb".isalpha()
"a1".isalnum()
" \t".isspace()
"AB".isupper()
"Ab".isupper()
"ab1".islower()
"Ab Cd".istitle()
"a_1".isidentifier()
"é".isascii()
"a\tb".expandtabs(4)
"{} and {}".format(1, "x")
"{0}{1}{0}".format("a", "b")
"{name}!".format(name=a)
"{:>5}|{:<5}|{:^5}".format("a", "b", "c")
"{:05d} {:+d} {:x} {:,}".format(42, 42, 255, 1234567)
"{:.2f} {:e} {:g} {:%}".format(3.14159, 31415.9, 0.0001, 0.25)
"{!r} {!s}".format("a", "a")
"{{}} {}".format(1)
"{0[x]} {0[y][1]}".format(d)
"{:*^9}".format("mid")
"{:{}}".format("w", 4) ~ "|"
"{}".format()
"{x}".format(1)
"{:d}".format("a")
"{".format()
"%s and %d" % ("a", 3)
"%s" % a
"%s" % [1]
"%5.1f|%-5s|%05d|%x|%X|%o|%e|%g|%%" % (3.14159, "ab", 42, 255, 255, 8, 12345.678, 0.5)
"%(n)s is %(a)d" % {"n": "x", "a": 3}
"%s %s" % ("a",)
"%s" % ("a", "b")
"%d" % "a"
"%c%c" % (65, "b")
"%r" % "a"
"%+d % d" % (1, 2)
"%*d" % (5, 42)
"%y" % 1
"%s, %s!"|format("Hi", a)
"%(x)s"|format(x=1)
a|length
u|length
nums|length
d|length
x|length
i|length
none|length
a|count
range(4)|length
(nums|map("abs"))|length
a|upper
none|upper
5|lower
x|upper
[1,"A"]|lower
a|capitalize
"mIxED cAse"|title
sp|trim
"xxhixx"|trim("x")
none|trim
x|trim
5|trim
sp|trim|length
a|replace("p", "b")
a|replace("p", "b", 1)
5|replace(5, 6)
none|replace("N", "n")
a|reverse
nums|reverse
nums|reverse|list
x|reverse|list
d|reverse|list
a|first
a|last
nums|first
nums|last
empty|first
empty|last
e|first
d|first
d|last
x|first
x|last
nums|map("string")|first
nums|map("string")|last
a|list
d|list
nums|list
range(3)|list
x|list
i|list
none|list
nums|join
nums|join(", ")
nums|join(1)
x|join(",")
a|join("-")
people|join(", ", attribute="name")
d|join("/")
mixed|join("|")
nums|sort
nums|sort(reverse=true)
nums|sort(true)
words|sort
words|sort(case_sensitive=true)
words|sort(true, true)
people|sort(attribute="age")|map(attribute="name")|list
people|sort(attribute="age,name")|map(attribute="name")|list
people|sort(attribute="name", case_sensitive=true)|map(attribute="name")|list
people|sort(attribute="age", reverse=true)|map(attribute="name")|list
mixed|sort
d|sort
people|sort
people|sort(attribute="nope")
a|sort|join
d|dictsort
d|dictsort(true)
d|dictsort(by="value")
d|dictsort(reverse=true)
{"b": 1, "A": 2, "c": 0}|dictsort
{"b": 1, "A": 2, "c": 0}|dictsort(true)
{"b": 1, "A": 2, "c": 0}|dictsort(false, "value")
{"b": 1, "A": 2}|dictsort(by="nope")
nums|dictsort
d|items|list
x|items|list
nums|items|list
words|unique|list
words|unique(true)|list
nums|unique|list
people|unique(attribute="age")|map(attribute="name")|list
nums|min
nums|max
words|min
words|max
words|max(true)
empty|min
people|max(attribute="age")
people|min(attribute="age")
mixed|max
nums|sum
people|sum(attribute="age")
people|sum("age", 100)
empty|sum
nums|sum(start=10)
words|sum
[[1],[2]]|sum(start=[])
nums|map("string")|list
words|map("upper")|join(" ")
words|map("replace", "p", "P")|list
nums|map("nope")|list
people|map(attribute="name")|join(",")
people|map(attribute="tags", default="none")|list
people|map(attribute="tags.0", default="-")|list
people|map(attribute="nope")|list
people|map(attribute="nope.more")|list
nested.l|map("join", "-")|list
nested.l|map("length")|sum
nested.l|map(attribute=0)|list
nums|map()|list
nums|select("odd")|list
nums|reject("odd")|list
nums|select("greaterthan", 1)|list
nums|select(">", 1)|list
nums|select|list
mixed|select("string")|list
mixed|select("none")|list
mixed|reject("none")|list
[0, 1, "", "a", none]|select|list
[0, 1, "", "a", none]|reject|list
nums|select("in", [1, 2])|list
nums|select("divisibleby", 3)|list
nums|select("nope")|list
people|selectattr("tags")|map(attribute="name")|list
people|selectattr("age", "gt", 26)|map(attribute="name")|list
people|rejectattr("age", "==", 30)|map(attribute="name")|list
people|selectattr("tags", "defined")|list|length
people|selectattr("tags", "undefined")|list|length
people|selectattr()|list
x|select("odd")|list
nums|batch(3)|list
nums|batch(3, "x")|list
nums|slice(3)|list
nums|slice(3, "x")|list
people|groupby("age")|map("first")|list
people|groupby("age")
people|groupby("tags", default=[])|length
people|map(attribute="age")|map("string")|join("+")
x|default("dd")
x|default
none|default("dd")
none|default("dd", true)
e|default("dd", true)
e|d("dd", boolean=true)
d.nope|default("dd")
d.nope.more|default("dd")
a|default("dd")
"42"|int
"4.9"|int
"abc"|int
"abc"|int(5)
"abc"|int(default=7)
"0x1F"|int(0, 16)
"ff"|int(base=16)
"101"|int(base=2)
" 12 "|int
"1_000"|int
"-5"|int
"--5"|int
"+5"|int
4.9|int
-4.9|int
none|int
true|int
x|int
nums|int
"1e3"|int
"inf"|int
"2.5"|float
"abc"|float
"abc"|float(1.5)
3|float
true|float
none|float
"1e5"|float
"nan"|float
" 2 "|float
x|float
42|string
none|string
[1,"a"]|string
x|string
1.0|string
n|abs
-2.5|abs
true|abs
a|abs
2.567|round
2.567|round(2)
2.5|round
3.5|round
-2.5|round
2.567|round(1, "floor")
2.567|round(1, "ceil")
2.1|round(method="ceil")
1234|round(-2)
1250|round(-2)
7|round
7|round(2)
7|round(1, "floor")
0.15|round(1)
2.675|round(2)
a|round
2.5|round(0, "nope")
html|escape
html|e
html|e|e
html|forceescape
html|safe
html|safe|upper
(html|safe) + "<"
"<" + (html|safe)
(html|e) ~ "<"
("<"|safe) ~ "<"
html|safe|replace("a", "<")
("<%s>"|safe) % "x"
[html|safe]
html|safe is escaped
html is escaped
("<b>"|safe)|length
("<"|safe) * 2
("a<b"|safe).split("<")
("a"|safe).upper() + "<"
("<"|safe)[0] + "<"
html|string + "<"
ml|indent
ml|indent(2)
ml|indent(2, true)
ml|indent(2, blank=true)
ml|indent("> ")
"a\n"|indent
""|indent
5|indent
"The quick brown fox jumps over"|truncate(15)
"The quick brown fox jumps over"|truncate(15, true)
"The quick brown fox jumps over"|truncate(15, true, "…", 0)
"The quick"|truncate(15)
"The quick brown fox"|truncate(length=11, leeway=0, end="")
"The quick brown"|truncate(2)
"The quick, brown-fox jumps_over 2"|wordcount
a|center(11)
"a b&c/ü=?"|urlencode
{"a b": "c&d", "e": 1}|urlencode
i|tojson
f|tojson
1e20|tojson
1e-7|tojson
t|tojson
no|tojson
u|tojson
u|tojson(ensure_ascii=true)
"\"\\\n\t\x01\x7f/<>&'"|tojson
"\"\\\n\t\x01\x7f/<>&'"|tojson(ensure_ascii=true)
html|tojson
mixed|tojson
d|tojson
d|tojson(indent=2)
d|tojson(indent=0)
d|tojson(indent="\t")
mixed|tojson(indent=4)
d|tojson(sort_keys=true)
d|tojson(separators=(",", ":"))
d|tojson(indent=1, separators=(",", ":"))
[]|tojson(indent=2)
{}|tojson(indent=2)
[[], {}]|tojson(indent=2)
{1: 2, none: 3, true: 4, 1.5: 5}|tojson
{(1,2): 3}|tojson
{1: 1, "a": 2}|tojson(sort_keys=true)
(1, 2)|tojson
x|tojson
range(3)|tojson
nums|map("string")|tojson
d.items()|tojson
d.keys()|list|tojson
messages|tojson
messages|tojson(indent=4)
namespace(a=1)|tojson
html|safe|tojson
"a"|attr("upper")
d|attr("x")
a|nope
a is nope
x is defined
a is defined
d.x is defined
d.q is defined
d.q.r is defined
x is undefined
x is not defined
no is none
no is not none
a is none
a is string
5 is string
a is not string
d is mapping
nums is mapping
nums is sequence
a is sequence
d is sequence
d.items() is sequence
d.keys() is iterable
range(2) is sequence
5 is sequence
x is sequence
x is iterable
nums is iterable
a is iterable
d is iterable
5 is iterable
none is iterable
nums|map("abs") is iterable
(nums|map("abs")) is sequence
5 is number
true is number
1.5 is number
"5" is number
5 is integer
true is integer
5.0 is integer
5.0 is float
5 is float
true is boolean
1 is boolean
true is true
1 is true
false is false
0 is false
range is callable
a is callable
x is callable
a.upper is callable
4 is even
4 is odd
n is odd
4.0 is even
"a" is even
x is even
9 is divisibleby 3
9 is divisibleby(4)
9 is divisibleby 0
5 is eq 5
5 is equalto(5)
5 == 5 is eq true
5 is ne 4
5 is gt 4
5 is ge 5
5 is lt 4
5 is le 5
5 is greaterthan 4
5 is lessthan 4
5 is in nums
3 is in nums
3 is in [1, 2]
3 is not in [1, 2]
a is sameas a
1 is sameas true
none is sameas none
a is lower
"ABC" is upper
"upper" is filter
"nope" is filter
"odd" is test
not a is none
a is string and i is number
a is string or x.y
a is defined and a
i is number == true
a|upper is string
a|length is gt 3
-1|abs
-i|abs
(-i)|abs
2 + 3|string
a ~ b|upper
not x|default(true)
1 if a is string else 2
range(3)
range(1, 4)|list
range(5, 0, -2)|list
range(0)|list
range(1, 2, 0)
range("a")
range(1000000)
range(3) == range(0, 3, 1)
dict(a=1, b=2)
dict([("a", 1)])
dict({"a": 1}, b=2)
dict(**d)
namespace(a=1).a
namespace(a=1).b
namespace({"x": 2}).x
namespace()
lipsum is defined
joiner(",") is callable
strftime_now("%Y-%m-%d")
strftime_now("%d %b %Y")
strftime_now("%A, %B %d, %Y %H:%M:%S %j %p %I %y %%")
strftime_now("%e %-d %-m %U %W %u %w %a %F %T %D")
raise_exception("boom " ~ i)
[x for x in nums]
a if
a.
a[
(a
1 +
a b
a |
a is
{1: }
"unclosed
a ! b
a = b
a $ b
a & b
1 in [1] in [[1]]
"a" in "abc" == true
range(3)|map("string")|join
nums|map("float")|list
words|map("length")|list
words|map("first")|join
words|join(", ")|upper
people[0].name ~ " is " ~ people[0].age
people[-1].tags|default([])|length
(people|first).name
people|map(attribute="age")|max
nums[nums|length - 1]
"%02d"|format(5)
"a" * 3 ~ "b"
[1,2,3][1:]|join
{"a": {"b": [1, {"c": 2}]}}["a"]["b"][1].c
(1 + 2) ~ ""
1 ~ 2 + 3
"a" + "b" * 2
"1" + 1|string
nums == [3, 1, 2, 3]
nums|list is sameas nums
(nums|length) > 3 and (words|length) < 5
e == ""
e is none
not e
not empty
not ed
not z
0.0 or "zero"
"0" or "no"
big
big + 1
big * 1000
9223372036854775807
-9223372036854775807 - 1
d.y|sum
d.y|join("-") if d.y is defined and d.y else "none"
messages[1].content is string
messages[1].content|selectattr("type", "equalto", "text")|map(attribute="text")|join
messages|selectattr("tool_calls", "defined")|list|length
(messages|first).role == "system"
messages[0]["role"] in ["system", "developer"]
messages|map("tojson")|list
"ab\n" in "xab\ny"
caller
loop
varargs
u|upper|lower|length
"\u200d"|tojson
["\u200d\u00a0 é"]
"ß"|upper
"ŉ"|upper
"ﬁ"|capitalize
"İ"|lower
"a\r\nb"|replace("\r\n", "\n")
"a" is in "abc"
"x" is in d
a[i]
a[z]
nums[t]
a["upper"]()
d["keys"]()|list
d["get"]("x")
(a.upper)()
a.upper().lower().replace("a", "b").split("p")
[a, b]|map("length")|list
[[3, "c"], [1, "a"]]|sort
[(3, "c"), (1, "a")]|sort(attribute=1)
[{"a": {"b": 2}}, {"a": {"b": 1}}]|sort(attribute="a.b")
[none, none]|unique|list
[1, 1.0, true]|unique|list
["1", 1]|unique|list
[[1], [1]]|unique|list
[1, [2, [3, (4, {"a": (5,)})]]]
"%s" % none
"%s" % x
"%d" % 3.99
"%d" % true
"%.3s" % "abcdef"
"%5s|%-5s|" % ("a", "b")
"{:5}|{:<5}|{:5}".format(1, 2, "x")
"{:.3}".format("abcdef")
"{}".format(none)
"{} {}".format(1.0, true)
"{:.0f} {:.1f}".format(2.5, 0.25)
"{:n}".format(5)
"{:b} {:o} {:#x}".format(5, 8, 255)
"{a.x}".format(a=d)
""".strip("\n").split("\n")

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
