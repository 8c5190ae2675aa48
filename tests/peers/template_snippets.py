"""Short templates for templates.py: each shows one thing of Jinja, of Python, or of what transformers adds to them.

They are rendered with the variables of VARIABLES. A template that Python refuses belongs here too: then ours must refuse it.
"""

VARIABLES = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": " Grüße, 世界! \U0001F600\n", "name": "Ana"},
        {"role": "assistant", "content": "<think>x</think>\nHi", "tool_calls": [
            {"type": "function", "function": {"name": "w", "arguments": {"city": "Zürich", "n": 1e-7, "big": 12345678901234567890123}}}
        ]},
        {"role": "tool", "content": '{"t": 21.50}', "name": "w"},
        {"role": "assistant", "content": "It's \"21.5\"."},
    ],
    "d": {"b": 2, "a": 1, "C": 3, "items": "shadowed", "n": None, "t": True, "f": 0.1, "list": [1, 2.5, "x", None, False, {"k": []}]},
    "words": ["pear", "Apple", "fig", "apple", "Fig"],
    "numbers": [3, 1, 2, 10, -4],
    "floats": [1e-7, 1e20, 1e16, 123456789012345.6, 1e15, 0.1, 1.0, -0.0, 1.5e300, 5e-324, 100000.0, 0.0001, 0.00001],
    "big": 12345678901234567890123,
    "s": "a,b,,c",
    "text": "one two  three\tfour\nfive",
    "quote": "it's",
    "both": "it's \"so\"\\",
    "empty": "",
    "nothing": None,
    "yes": True,
    "x": 7,
    "pi": 3.14159265358979,
}

OUTPUT = [
    # numbers
    "{{ floats }}", "{% for f in floats %}{{ f }} {% endfor %}", "{% for f in floats %}{{ f | tojson }} {% endfor %}",
    "{{ big }} {{ big | tojson }} {{ [big] }} {{ big is integer }}", "{{ 1e3 }} {{ 1_000 }} {{ 0x1F }} {{ 0b11 }} {{ 1.50 }} {{ 2e-9 }}",
    "{{ 7 / 2 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ 6 / 3 }}",
    "{{ 7.5 // 2 }} {{ -7.5 % 2 }} {{ 1 + 1.0 }} {{ true + true }} {{ 3 * true }}", "{{ 0.1 + 0.2 }} {{ 1 / 3 }}",
    "{{ 9007199254740993 }} {{ 9007199254740993 + 1 }} {{ 18446744073709551616 * 2 }}", "{{ -2 ** 2 }} {{ 2 ** 3 ** 2 }}",
    "{{ - x }} {{ +x }} {{ not x }}", "{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 1 == 1.0 }} {{ 1 == true }} {{ '1' == 1 }}",
    "{{ 3.7 | int }} {{ '3.7' | int }} {{ 'x' | int }} {{ 'x' | int(5) }} {{ 'ff' | int(base=16) }} {{ '1e3' | float }} {{ true | int }}",
    "{{ 2.5 | round }} {{ 3.14159 | round(2) }} {{ 7 | round }} {{ 2.1 | round(0, 'ceil') }} {{ 2.9 | round(method='floor') }} {{ 42.55 | round(1) }}",
    "{{ -3 | abs }} {{ (-3) | abs }} {{ -2.5 | abs }}", "{{ x.bit_length() }} {{ (2.0).is_integer() }}",
    "{{ numbers | sum }} {{ numbers | min }} {{ numbers | max }} {{ numbers | sort }} {{ numbers | sort(reverse=true) }}",
    # what prints
    "{{ none }} {{ true }} {{ false }} {{ None }} {{ True }}", "{{ d }}", "{{ d.list }}", "{{ (1,) }} {{ () }} {{ (1, 2) }} {{ 1, 2 }}",
    "{{ quote }} {{ [quote] }} {{ [both] }} {{ ['\\n\\t\\x00é\\u200b世'] }}", "{{ d.keys() }} {{ d.values() | list }} {{ {'a': 1}.items() }}",
    "{{ range(3) }} {{ range(1, 7, 2) | list }} {{ range(5)[1:3] | list }}", "{{ [none, true, 1.0, 'x'] | join('-') }}", "{{ 'a' ~ 1 ~ none ~ true ~ 1e20 ~ [1] }}",
    "{{ undefined_one }}|{{ d.nope }}|{{ d['nope'] }}|{{ messages[99] }}", "{{ x | string }}{{ none | string }}", "{{ namespace(a=1).a }}",
    "{{ {1: 2, 'a': [1], none: true} }}", "{{ {1: 2, 1.0: 3, true: 4} }}", "{{ [[1, 2], [3]] }}", "{{ '%s' % [1] }}",
    # attributes and items
    "{{ d.items }}", "{{ d['items'] }}", "{{ d.get('a') }} {{ d.get('zz') }} {{ d.get('zz', 5) }}", "{{ d.a }} {{ d['a'] }} {{ messages[0].role }} {{ messages[-1]['content'] }}",
    "{{ messages.0.role }}", "{{ messages[1:3] | map(attribute='role') | list }}", "{{ 'abc'[1] }} {{ 'abc'[-1] }} {{ 'abc'[::-1] }} {{ 'abcdef'[1:5:2] }} {{ 'äöü'[1:] }}",
    "{{ [1,2,3,4][::-2] }} {{ [1,2,3][5:] }} {{ [1,2,3][:-1] }} {{ [1,2,3][-100:2] }}", "{{ (1,2,3)[1:] }}", "{{ undefined_one.x }}", "{{ d.nope.x }}", "{{ none.x }}|", "{{ x.y }}|",
    "{{ d[0] }}|", "{{ 'abc'[9] }}|", "{{ d[1:2] }}", "{{ messages[0]['role'][0] }}", "{{ s.nope }}|", "{{ s['upper']() }}", "{{ d['keys']() | list }}", "{{ d | attr('a') }}|", "{{ d | attr('keys') is defined }}",
    # tests
    "{% for v in [1, 1.0, 'a', none, true, [1], (1,), {'a': 1}, nope, range(2), d.keys()] %}{{ v is string }},{{ v is mapping }},{{ v is iterable }},{{ v is sequence }},{{ v is number }},{{ v is integer }},{{ v is float }},{{ v is boolean }},{{ v is none }},{{ v is defined }},{{ v is true }},{{ v is false }},{{ v is callable }};{% endfor %}",
    "{{ tools is none }} {{ tools is not none }} {{ tools is defined }} {{ documents is none }} {{ tools }}", "{{ 1 is sameas(1) }} {{ 1 is sameas true }} {{ none is sameas none }} {{ d is sameas d }} {{ [1] is sameas [1] }}",
    "{{ 3 is odd }} {{ 4 is even }} {{ 9 is divisibleby 3 }} {{ 9 is divisibleby(2) }}", "{{ 'a' is in ['a'] }} {{ 'a' is lower }} {{ 'A1' is upper }} {{ 1 is eq 1 }} {{ 1 is lessthan 2 }} {{ 2 is gt(1) }} {{ 2 is ne 3 }}",
    "{{ raise_exception is callable }} {{ range is callable }} {{ d.get is callable }} {{ true is number }} {{ true is integer }}", "{{ 'x' is string and 1 is number or none }}", "{{ not 1 is none }} {{ 1 is not none }}",
    "{{ nope is undefined }} {{ nope is sequence }} {{ nope is iterable }} {{ nope | length }}", "{{ x is nosuchtest }}", "{{ x | nosuchfilter }}", "{{ 'yes' if x is defined and x else 'no' }}", "{{ ('b' if false) is defined }}[{{ 'b' if false }}]",
    # comparison and membership
    "{{ 'a' in 'abc' }} {{ 'a' in ['a'] }} {{ 'a' in d }} {{ 1 in [1.0] }} {{ 'x' not in 'abc' }} {{ 'role' in messages[0] }} {{ 2 in (1, 2) }}", "{{ 1 in 'abc' }}", "{{ 'a' in none }}", "{{ 'a' in nope }}",
    "{{ 'a' < 'b' }} {{ [1, 2] < [1, 3] }} {{ 'B' < 'a' }}", "{{ 1 < 'a' }}", "{{ none < 1 }}", "{{ {'a': 1, 'b': 2} == {'b': 2, 'a': 1} }} {{ [1] == (1,) }} {{ none == false }} {{ nope == nope2 }} {{ nope == none }}",
    "{{ nope + 1 }}", "{{ 'a' + 1 }}", "{{ 'a' * 3 }} {{ [1] * 2 }} {{ [1] + [2] }} {{ (1,) + (2,) }}", "{{ none + 'a' }}", "{{ 1 / 0 }}", "{{ [] or 'x' }} {{ 0 and 1 }} {{ '' or none }} {{ 'a' and 'b' }}",
    # Python's string methods
    "{{ 'ab'.removeprefix('a') }} {{ 'ab'.removesuffix('b') }} {{ 'ab'.removeprefix('x') }}", "{{ 'a,b'.rsplit(',', 1) }} {{ s.split(',') }} {{ s.split(',', 1) }} {{ s.rsplit(',', maxsplit=1) }} {{ text.split() }} {{ text.split(None, 2) }} {{ text.rsplit(none, 1) }}",
    "{{ s.partition(',') }} {{ s.rpartition(',') }} {{ s.partition('x') }} {{ s.rpartition('x') }}", "{{ '  xx '.strip() }}|{{ 'xaxbx'.strip('x') }}|{{ 'abcab'.lstrip('ab') }}|{{ 'abcab'.rstrip('ba') }}|{{ '\\n a'.lstrip('\\n') }}",
    "{{ '7'.zfill(3) }} {{ '-7'.zfill(4) }} {{ 'a'.ljust(3) }}|{{ 'a'.rjust(3, '.') }}|{{ 'ab'.center(5, '*') }}|{{ 'ab'.center(4) }}|{{ 'abc'.center(6, '-') }}", "{{ 'a b'.title() }} {{ 'hELLO wORLD'.capitalize() }} {{ 'aB'.swapcase() }} {{ 'ß'.upper() }} {{ 'ÄÖ'.lower() }} {{ \"it's a dog\".title() }}",
    "{{ 'abcabc'.find('c') }} {{ 'abcabc'.rfind('c') }} {{ 'abc'.find('z') }} {{ 'äbäb'.find('b', 2) }} {{ 'abcabc'.count('a') }} {{ 'aaa'.count('aa') }} {{ 'abc'.index('b') }}", "{{ 'abc'.index('z') }}", "{{ 'abc'.startswith('a') }} {{ 'abc'.startswith(('x', 'a')) }} {{ 'abc'.endswith('bc') }} {{ 'abc'.startswith('b', 1) }} {{ 'abc'.endswith(('c',)) }}",
    "{{ 'aXbX'.replace('X', '-') }} {{ 'aXbX'.replace('X', '-', 1) }} {{ 'ab'.replace('', '.') }}", "{{ '12'.isdigit() }} {{ '1a'.isdigit() }} {{ 'ab'.isalpha() }} {{ 'a1'.isalnum() }} {{ ' '.isspace() }} {{ 'Ab'.istitle() }} {{ 'AB'.isupper() }} {{ 'ab1'.islower() }} {{ ''.isdigit() }} {{ 'a_1'.isidentifier() }} {{ 'é'.isascii() }} {{ '²'.isnumeric() }}",
    "{{ 'a\\nb\\r\\nc'.splitlines() }} {{ 'a\\n'.splitlines(true) }} {{ 'a\\tb'.expandtabs(4) }}", "{{ '-'.join(['a', 'b']) }} {{ ', '.join(d.keys()) }}", "{{ '-'.join([1]) }}", "{{ 'abc'.split('') }}", "{{ 'AbC'.casefold() }}",
    "{{ '{} {}'.format(1, 'a') }} {{ '{0}{1}{0}'.format('a', 'b') }} {{ '{x:>5}|{y:<4}|{z:^5}'.format(x=1, y='a', z='b') }} {{ '{:05.2f} {:,} {:x} {:+d} {:%} {:.3}'.format(pi, 1234567, 255, 5, 0.25, pi) }}", "{{ '{!r} {{}} {:>{w}}'.format('a', 'b', w=4) }} {{ '{a[k]}'.format(a={'k': 1}) }}", "{{ '{:*^9}'.format('mid') }} {{ '{:08.3f}'.format(-pi) }} {{ '{:e}'.format(12345.678) }} {{ '{:g}'.format(0.00001234) }} {{ '{:b}'.format(5) }}", "{{ '{a} {b}'.format_map({'a': 1, 'b': 2}) }}",
    # % formatting
    "{{ '%d%%' % 5 }} {{ '%s-%s' % ('a', 1) }} {{ '%5.2f|%-5d|%05d|%x|%X|%o' % (pi, 3, 42, 255, 255, 8) }}", "{{ '%(a)s and %(b)d' % d }} {{ '%r %s' % ('a', none) }} {{ '%e %g %G' % (12345.678, 0.0001, 1e20) }}", "{{ '%+d % d %+.1e' % (5, 5, 0.00012) }} {{ '%c%c' % (65, 'b') }} {{ '%.3s|%10s|%-10s|' % ('abcdef', 'r', 'l') }} {{ '%*d' % (5, 3) }}",
    "{{ '%d' % 'a' }}", "{{ '%s %s' % 1 }}", "{{ 'x' % 1 }}", "{{ '%s' | format('a') }} {{ '%d/%d' | format(1, 2) }} {{ '%(n)s' | format(n=3) }}", "{{ '%d' % 3.9 }} {{ '%i' % true }} {{ '%s' % true }}", "{{ '%#x %#o' % (255, 8) }} {{ '%s' % ((1, 2),) }}",
    # tojson
    "{{ d | tojson }}", "{{ d | tojson(indent=2) }}", "{{ d | tojson(indent=4, sort_keys=True) }}" , "{{ {'b': 1, 'a': [1, {'z': 2, 'y': 3}]} | tojson(sort_keys=true) }}", "{{ d.list | tojson(separators=(',', ':')) }}", "{{ messages[1].content | tojson }} {{ messages[1].content | tojson(ensure_ascii=true) }} {{ messages[1].content | tojson(true) }}",
    "{{ '<a href=\"x\">&amp;</a>' | tojson }} {{ \"it's\" | tojson }} {{ '\\x7f\\x01\\u2028\\b' | tojson }}", "{{ {1: 2, true: 3, none: 4, 1.5: 5} | tojson }}", "{{ nope | tojson }}", "{{ [] | tojson }} {{ {} | tojson }} {{ [] | tojson(indent=2) }} {{ {} | tojson(indent=1) }} {{ [[]] | tojson(indent=1) }}", "{{ d.list | tojson(indent='--') }} {{ [1] | tojson(indent=0) }}", "{{ (1, 2) | tojson }} {{ none | tojson }} {{ 'a' | tojson }} {{ 1 | tojson }} {{ floats | tojson }}", "{{ d | tojson(ensure_ascii=False, indent=None) }}", "{{ d | tojson(nosuch=1) }}", "{{ [1, [2, {'a': (3,)}]] | tojson(indent=2, separators=(', ', ' = ')) }}", "{{ d.keys() | tojson }}", "{{ messages[2].tool_calls | tojson }}", "{{ messages | tojson(indent=1) }}",
    # filters
    "{{ words | sort }} {{ words | sort(case_sensitive=true) }} {{ words | sort(reverse=true) }} {{ words | unique | list }} {{ words | map('upper') | list }} {{ words | map('replace', 'p', 'P') | join(',') }}", "{{ messages | map(attribute='name', default='-') | join(' ') }} {{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ messages | rejectattr('role', 'in', ['user', 'tool']) | map(attribute='role') | list }} {{ messages | selectattr('tool_calls') | list | length }} {{ messages | selectattr('name', 'defined') | list | length }}",
    "{{ numbers | select('gt', 1) | list }} {{ numbers | reject('odd') | list }} {{ [0, 1, '', 'a'] | select | list }} {{ numbers | select('divisibleby', 2) | first }}", "{{ messages | selectattr('role', 'equalto', 'user') | length }}", "{% set g = words | select('string') %}{{ g | list }}{{ g | list }}", "{% set g = words | map('lower') %}{{ g | first }}{{ g | first }}{% for w in g %}[{{ w }}]{% endfor %}",
    "{{ words | first }} {{ words | last }} {{ [] | first }}| {{ [] | last }}| {{ 'abc' | first }} {{ 'abc' | last }} {{ words | length }} {{ d | length }} {{ 'abc' | list }} {{ d | list }} {{ words | reverse | list }} {{ 'abc' | reverse }}", "{{ d | dictsort }}" , "{{ {'b': 1, 'A': 2} | dictsort }} {{ {'b': 1, 'A': 2} | dictsort(true) }} {{ {'b': 1, 'A': 2} | dictsort(by='value', reverse=true) }} {{ {'b': 1} | items | list }}",
    "{{ messages | groupby('role') | map('first') | list }} {% for r, ms in messages | groupby('role') %}{{ r }}={{ ms | length }} {% endfor %}{% for g in messages | groupby('role') %}{{ g.grouper }}{{ g.list | length }}{% endfor %}", "{{ [1,2,3,4,5] | batch(2) | list }} {{ [1,2,3] | batch(2, 0) | list }} {{ [1,2,3,4,5] | slice(2) | list }} {{ [1,2,3,4,5] | slice(3, 'x') | list }}",
    "{{ 'a\\nb\\n\\nc' | indent }}|{{ 'a\\nb' | indent(2, true) }}|{{ 'a\\n\\nb' | indent(1, blank=true) }}|{{ 'a\\nb' | indent('> ') }}|{{ 'a\\n' | indent(2) }}", "{{ 'hello world out there' | truncate(11) }} {{ 'hello world out there' | truncate(9, true) }} {{ 'hello world' | truncate(5, true, '..', 0) }}", "{{ 'a b-c (d' | title }} {{ 'hELLO' | capitalize }} {{ ' a ' | trim }}| {{ 'xax' | trim('x') }} {{ 'ab' | center(6) }}| {{ 'a b c' | wordcount }} {{ 'a-b' | replace('-', '+') }} {{ 'aaa' | replace('a', 'b', 2) }}", "{{ nope | default('x') }} {{ none | default('x') }} {{ '' | default('x', true) }} {{ none | d('y', boolean=true) }} {{ nope | default }}|", "{{ '<a & \"b\">' | e }} {{ 'a b/ü' | urlencode }} {{ 5 | e }}", "{{ 5 | upper }} {{ none | lower }} {{ 1.0 | string | length }}", "{{ [1, 2] | sum(start=10) }} {{ messages | map(attribute='content') | map('length') | sum }} {{ [{'n': 1}, {'n': 2}] | sum(attribute='n') }}", "{{ [{'n': 2}, {'n': 1}] | sort(attribute='n') }} {{ [{'a': 1, 'b': 2}, {'a': 1, 'b': 1}] | sort(attribute='a,b') | map(attribute='b') | list }} {{ [{'n': 2}, {'n': 1}] | min(attribute='n') }} {{ words | max }}", "{{ [1, 'a'] | sort }}", "{{ [] | max }}|", "{{ [3, 1] | join(', ', attribute='real') }}", "{{ [{'a': {'b': 5}}] | map(attribute='a.b') | list }} {{ [[1, 2]] | map(attribute=1) | list }} {{ [[1, 2]] | map(attribute='0') | list }}", "{{ 3 | length }}", "{{ none | list }}", "{{ 'abc' | map('upper') | join }}", "{{ words | join(', ') | upper }}", "{{ x | random }}", "{{ 1234567 | filesizeformat }}",
    # functions
    "{{ dict(a=1, b=2) }} {{ dict([('x', 1)]) }} {{ dict({'a': 1}, b=2) }} {{ dict.fromkeys(['a', 'b'], 0) }}", "{% set ns = namespace(n=0, found=false) %}{% for m in messages %}{% if m.role == 'assistant' %}{% set ns.n = ns.n + 1 %}{% set ns.found = true %}{% endif %}{% endfor %}{{ ns.n }}{{ ns.found }}{{ ns['n'] }}{{ ns.zz }}|", "{% set ns = namespace({'a': 1}, b=2) %}{{ ns.a + ns.b }}", "{% set ns = namespace() %}{% set ns._x = 1 %}", "{{ namespace(_x=1) }}", "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}", "{% set j = joiner('|') %}{{ j() }}a{{ j() }}b{{ j() }}c", "{{ range(200000) | length }}", "{{ range(0) | list }} {{ range(5, 0, -2) | list }}", "{{ raise_exception('no: ' ~ x) }}", "{{ range('a') }}", "{{ nope() }}", "{{ x() }}",
    # mutation and private attributes
    "{{ words.append('x') }}", "{{ d.update({'z': 1}) }}", "{{ d.pop('a') }}", "{{ words.sort() }}", "{{ d.setdefault('q', 1) }}", "{{ words.append is defined }}", "{{ ''.__class__ }}|", "{{ ''.__class__.__mro__ }}", "{{ d._private }}|", "{{ words.index('fig') }} {{ words.count('fig') }} {{ (1, 2, 1).count(1) }}", "{{ words.index('zzz') }}", "{{ words.copy() }} {{ d.copy() == d }}",
    # scopes
    "{% set v = 1 %}{% for i in [1, 2] %}{{ v }}{% set v = v + i %}{{ v }}{% endfor %}{{ v }}", "{% set v = 1 %}{% if true %}{% set v = 2 %}{% endif %}{{ v }}", "{% for i in [1] %}{% set inner = 5 %}{% endfor %}{{ inner }}|", "{% with a = 1, b = 2 %}{{ a + b }}{% set a = 9 %}{{ a }}{% endwith %}{{ a }}|", "{% set v %}a{{ x }}b{% endset %}{{ v }}{{ v | length }}", "{% set v | upper | trim %} abc {% endset %}[{{ v }}]", "{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set (c, e) = (3, 4) %}{{ c }}{{ e }}", "{% set a, b = [1] %}", "{% for k, v in d.items() if k != 'list' %}{{ k }}={{ v }};{% endfor %}", "{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}", "{% filter upper | replace('A', 'b') %}abc {{ quote }}{% endfilter %}", "{% for i in nope %}a{% else %}none{% endfor %}", "{% for i in none %}a{% endfor %}", "{% for i in 5 %}a{% endfor %}", "{% set x.y = 1 %}",
    # loops
    "{% for i in words %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.cycle('o', 'e') }}{{ loop.depth }};{% endfor %}", "{% for i in [1, 1, 2, 2, 1] %}{{ loop.changed(i) }} {% endfor %}", "{% for i in range(10) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %}", "{% for i in [[1, [2, [3]]], 4] recursive %}{% if i is iterable %}({{ loop(i) }}){% else %}{{ i }}@{{ loop.depth }}{% endif %}{% endfor %}", "{% for m in messages if m.role != 'system' %}{{ loop.index }}{{ m.role }}{% if not loop.last %},{% endif %}{% endfor %}", "{% for i in [1,2] %}{% for j in [3,4] %}{{ loop.index }}{% if j == 3 %}{% continue %}{% endif %}x{% endfor %}{{ loop.index }}|{% endfor %}", "{% for i in 'aé世' %}{{ i }}.{% endfor %}", "{% for k in d %}{{ k }} {% endfor %}", "{% for i in [3] %}{% else %}never{% endfor %}", "{% for m in messages[1:] | reverse %}{{ m.role }} {% endfor %}", "{% for i in range(3) %}{{ loop.index }}{% if loop.previtem is defined and loop.previtem == 1 %}!{% endif %}{% endfor %}", "{% break %}", "{% for i in [1] %}{{ loop }}{% endfor %}",
    # macros
    "{% macro f(a, b=2, c='x') %}[{{ a }}{{ b }}{{ c }}]{% endmacro %}{{ f(1) }}{{ f(1, 3) }}{{ f(1, c='z') }}{{ f(b=5, a=4) }}{{ f() }}", "{% macro f() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f(1, 2, k=3) }}", "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(1, 2) }}", "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(q=2) }}", "{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(4) }}", "{% macro wrap(t) %}<{{ t }}>{{ caller() }}</{{ t }}>{% endmacro %}{% call wrap('b') %}in{{ x }}{% endcall %}", "{% macro each(l) %}{% for i in l %}{{ caller(i) }}{% endfor %}{% endmacro %}{% call(v) each([1, 2]) %}({{ v }}){% endcall %}", "{% set v = 5 %}{% macro f() %}{{ v }}{% endmacro %}{{ f() }}{% set v = 6 %}{{ f() }}", "{% macro f() %}  a  {% endmacro %}[{{ f() | trim }}][{{ f() }}]{{ f() | length }}{{ f() is string }}", "{% macro f(x) -%} {{ x | upper }} {%- endmacro %}{{ f('a') }}{{ ['a', 'b'] | map('upper') | join }}", "{{ g(1) }}{% macro g(a) %}{{ a }}{% endmacro %}", "{% macro f(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ f(*[1, 2]) }}{{ f(**{'a': 3}) }}{{ f(7) }}", "{% macro f() %}{% set y = 1 %}{{ y }}{% endmacro %}{{ f() }}{{ y }}|",
    # calls in strange places
    "{{ [1, 2] | first + 1 }}", "{{ 'a' if yes else 'b' ~ 'c' }}", "{{ ('a' if not yes else 'b') ~ 'c' }}", "{{ 'a' 'b' \"c\" }}", "{{ 'A' | lower ~ 'B' | lower }}", "{{ 1 + 2 * 3 - 4 // 2 }} {{ (1 + 2) * 3 }} {{ 10 - 2 - 3 }} {{ 2 * 3 % 4 }}", "{{ not true or true }} {{ not (true and false) }}", "{{ x == 7 and 'yes' or 'no' }}", "{{ 'a' ~ 'b' == 'ab' }} {{ 1 ~ 2 + 3 }}", "{{ -1 | abs }} {{ x is number and not x is string }}", "{{ {'a': {'b': [1, {'c': 2}]}}.a.b[1].c }}", "{{ 'x' in 'xyz' and 'q' not in 'xyz' }}", "{{ [x, x + 1,] }}{{ {'a': 1,} }}", "{{ d.list[5].k is sequence }}", "{{ 'a' is string is true }}", "{{ messages | length > 3 }}", "{{ (messages | last).content }}", "{{ 'yes' if messages[0].role == 'system' }}", "{{ 5 if false else 6 if false else 7 }}",
    # strings in source
    "{{ 'a\\tb\\\\n\\'\\\"\\x41\\u00e9\\101\\q' }}", "{{ \"it's\" }} {{ 'say \"x\"' }} {{ 'line\nbreak' }}", "{{ '\\U0001F600' }}", "{{ '{{ }} {% %}' }}", "{{ 'a' }}{# comment {{ x }} #}b", "{% raw %}{{ x }}{% if %}{% endraw %}!",
    # syntax that is refused
    "{% for %}", "{{ }}", "{% if x %}", "{{ x", "{% endif %}", "{% unknown %}", "{{ 'abc }}", "{{ (1, 2 }}", "{# open", "{{ 1 2 }}", "{% set %}", "{{ x | }}", "{% do x %}", "{% include 'a' %}", "{{ f(a=1, 2) }}", "{{ 08 }}", "{{ a.b. }}", "{{ x is }}", "{% for x y %}{% endfor %}", "{% macro f(a=1, b) %}{% endmacro %}", "{{ a ! b }}", "{{ 'a' if x is defined }}", "{{ x is defined if yes }}",
    # generation
    "a{% generation %}b{{ x }}{% endgeneration %}c", "{%- generation -%} b {%- endgeneration -%} c", "{% generation %}{% set q = 1 %}{% endgeneration %}{{ q }}|",
]

# Whitespace control: text, tags and line breaks.
SPACE = [
    "{% if true %}\nx\n{% endif %}\ny\n", "  {% if true %}\n  x\n  {% endif %}\n  y", "a\n  {%- if true %}\n  x\n  {%- endif %}\nb", "a {%- if true -%} x {%- endif -%} b", "a\n{{ x }}\nb\n", "a\n  {{- x -}}  \nb", "{#- c -#}  a  {# c #}\nb\n {# d #} e", "  {%+ if true %}x{% endif +%}\ny", "\n\n{% set a = 1 %}\n\n{{ a }}", "{% for i in [1, 2] %}\n  {{ i }}\n{% endfor %}\nend\n\n", "a\t{% if true %}b{% endif %}", "\t {% if true %}b{% endif %}\n \t{% if true %}c{% endif %} ", "x{% if true %}\n\ny{% endif %}", "{% raw %}\n  {{ a }}\n{% endraw %}\nb", "a\r\n{% if true %}\r\nb\r\n{% endif %}\r\nc\r\n", "a\r{% if true %}\rb\r{% endif %}c", "{{ 'a\r\nb' }}", "{% if true -%}\n\n  x\n\n{%- endif %}", "{%- if true %}  x  {% endif -%}\n\n", "a\n\n", "a\n\n\n", "\n", "", " ", "{{ x }}\n", "{{ x }}\r\n", "a {# c -#} \n b", "a {#- c #} b", "{{- x }} a {{ x -}} b", "a\u00a0{%- if true %}b{% endif %}", "{%if true%}a{%endif%}", "{{x}}{{-x-}}", "  {%- raw -%}  a  {%- endraw -%}  ", "a  {% raw %} b {% endraw %} c", "{% set a %}\n  x\n{% endset %}[{{ a }}]", "{% if true %}{# c #}\nx{% endif %}", "x\n    {# c #}\n    y", "{% if true %}\r\n  {% endif %}\r\nz", "{{ '\\r\\n' }}|", "a\u2028{%- if true %}b{% endif %}", "a{% if true %}\n {% endif %}\n b",
]
