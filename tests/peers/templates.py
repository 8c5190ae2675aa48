"""What transformers renders, for tests/references/templates/cases.json.

    python3 -m venv v; v/bin/pip install transformers==5.23.0 jinja2==3.1.6
    v/bin/python tests/peers/templates.py

Every template of tests/references/templates/families and of tests/field is rendered with every conversation below by
`render_jinja_template`, which `apply_chat_template` calls; `apply_chat_template` itself drops keys that are none first, and so
does this file. Snippets are in template_snippets.py. Where Python raises an error, the case says so, with the error's kind.
"""

import importlib.metadata
import json
import sys
from pathlib import Path

import jinja2
from template_snippets import OUTPUT, SPACE, VARIABLES
from transformers.utils.chat_template_utils import render_jinja_template

TESTS = Path(__file__).resolve().parent.parent
OUT = TESTS / "references" / "templates"
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}

TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "Weather of a city.\nNow & <here>.", "parameters": {
        "type": "object", "properties": {
            "city": {"type": "string", "description": "Name, e.g. Zürich"},
            "days": {"type": "integer", "default": 3},
            "units": {"type": "string", "enum": ["C", "F"]},
            "spots": {"type": "array", "items": {"type": "number"}, "nullable": True},
            "extra": {"type": "object", "properties": {"deep": {"type": ["string", "null"]}, "off": {"type": "boolean"}}, "required": ["off"]},
        }, "required": ["city"]}}},
    {"type": "function", "function": {"name": "clock", "description": "The time.", "parameters": {"type": "object", "properties": {}}}},
]


def turn(role, content=..., **more):
    return {"role": role} | ({} if content is ... else {"content": content}) | more


def call(name, arguments, **more):
    return {"id": "call12345", "type": "function", "function": {"name": name, "arguments": arguments}} | more


CONVERSATIONS = {
    "one-turn": {"messages": [turn("user", "Hi"), turn("assistant", "Hello!")]},
    "system": {"messages": [turn("system", "Be brief.\n"), turn("user", " 2 + 2? "), turn("assistant", "4")]},
    "turns": {"messages": [turn("user", "a"), turn("assistant", "b"), turn("user", "c"), turn("assistant", "d"), turn("user", "e")]},
    "thinking": {"messages": [turn("user", "q"), turn("assistant", "<think>\nr1\n</think>\n\na1"), turn("user", "q2"), turn("assistant", "<think>\nr2\n</think>\n\na2")]},
    "reasoning": {"messages": [turn("user", "q"), turn("assistant", "a1", reasoning_content="r1"), turn("user", "q2"), turn("assistant", "a2", reasoning="\nr2\n")]},
    "thinking-key": {"messages": [turn("user", "q"), turn("assistant", "a", thinking="t", reasoning_content=None)]},
    "call": {"tools": TOOLS, "messages": [turn("system", "Use tools."), turn("user", "Weather?"), turn("assistant", None, tool_calls=[call("weather", {"city": "Zürich", "days": 2, "spots": [1.0, 1e-7, 1e20]})]), turn("tool", "{\"t\": 21.5}", name="weather", tool_call_id="call12345"), turn("assistant", "21.5 °C")]},
    "call-empty-content": {"tools": TOOLS[:1], "messages": [turn("user", "Weather?"), turn("assistant", "", tool_calls=[call("weather", {"city": "<Rome> & 'co'", "extra": {"off": False, "deep": None}})])]},
    "two-calls": {"tools": TOOLS, "messages": [turn("user", "Both?"), turn("assistant", "Yes.", reasoning_content="two", tool_calls=[call("weather", {"city": "A"}), call("clock", {})]), turn("tool", "1"), turn("tool", "2"), turn("assistant", "done")]},
    "arguments-as-string": {"tools": TOOLS[1:], "messages": [turn("user", "Time?"), turn("assistant", tool_calls=[call("clock", "{\"zone\": \"UTC\"}")]), turn("tool", "12:00")]},
    "no-tools": {"tools": [], "messages": [turn("user", "x"), turn("assistant", "y")]},
    "documents": {"documents": [{"title": "on bees", "text": "Bees make honey all summer long."}, {"text": "No title.", "n": 1.5}], "messages": [turn("user", "Bees?"), turn("assistant", "Honey.")]},
    "unicode": {"messages": [turn("user", "Grüße 世界 \U0001F600 e\u0301 \u00a0\u2028x"), turn("assistant", "\u00a0ナマステ नमस्ते\u3000")]},
    "whitespace": {"messages": [turn("system", "  "), turn("user", "\n\n a\r\nb\t\n"), turn("assistant", "\n\n```py\nx = 1\n\n```\n\n")]},
    "jinja-in-text": {"messages": [turn("user", "{{ 1 }} {% if %} {# x #}"), turn("assistant", "<|im_end|> </s> %s %% {0} \\n")]},
    "parts": {"messages": [turn("user", [{"type": "text", "text": "What is "}, {"type": "image"}, {"type": "text", "text": "this?"}]), turn("assistant", [{"type": "text", "text": "A cat."}])]},
    "names-and-numbers": {"messages": [turn("user", "x", name="ana", n=7, f=0.1, t=True, none=None), turn("assistant", "y", score=12345678901234567890123, weight=1)]},
    "kwargs": {"more": {"enable_thinking": False, "reasoning_effort": "high", "date_string": "1 Jan 2020", "bos_token": "<B>", "controls": {"length": "short", "p": 0.5}, "tools_in_user_message": False}, "tools": TOOLS[1:], "messages": [turn("system", "s"), turn("user", "u"), turn("assistant", "a")]},
    "odd-order": {"messages": [turn("assistant", "first"), turn("assistant", "second"), turn("user", "u"), turn("critic", "c")]},
    "empty": {"messages": [turn("user", ""), turn("assistant", "")]},
}

# Their renders hold no date and no address in memory.
LEFT_OUT = {"{{ d.items }}", "{{ [3, 1] | join(', ', attribute='real') }}", "{{ 1234567 | filesizeformat }}"}


def render(template, messages, tools=None, documents=None, more=None, opened=False):
    messages = [{key: value for key, value in message.items() if value is not None} for message in messages]
    try:
        variables = SPECIAL | (more or {})
        texts, spans = render_jinja_template(
            [messages], tools=tools, documents=documents, chat_template=template, add_generation_prompt=opened,
            return_assistant_tokens_mask=True, **variables,
        )
    except Exception as error:  # noqa: BLE001: whatever a template does wrong
        return {"error": type(error).__name__}
    return {"text": texts[0]} | ({"spans": spans[0]} if spans[0] else {})


def main():
    templates = {path.stem: path.read_bytes().decode() for path in sorted((OUT / "families").glob("*.jinja"))}
    for path in sorted((TESTS / "field").glob("*/t.jinja")):
        if path.parent.name != "date-in-template":
            templates["field/" + path.parent.name] = path.read_bytes().decode()
    cases = []
    for name, template in templates.items():
        for title, conversation in CONVERSATIONS.items():
            for opened in (False, True):
                cases.append({"template": name, "conversation": title, "open": opened} | render(template, **conversation, opened=opened))
    snippets = []
    given = {key: value for key, value in VARIABLES.items() if key != "messages"}
    for template in OUTPUT + SPACE:
        if template not in LEFT_OUT:
            snippets.append({"template": template} | render(template, VARIABLES["messages"], more=given))
    source = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("transformers", "jinja2"))
    table = {
        "source": f"{source}, render_jinja_template; tests/peers/templates.py",
        "special": SPECIAL, "variables": VARIABLES, "templates": templates, "conversations": CONVERSATIONS,
    }
    lines = [f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in table.items()]
    for key, rows in (("cases", cases), ("snippets", snippets)):
        lines.append(f"{json.dumps(key)}: [\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]")
    (OUT / "cases.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8", newline="\n")
    failed = sum("error" in case for case in cases)
    print(f"{len(templates)} templates, {len(cases)} cases ({failed} errors), {len(snippets)} snippets, jinja2 {jinja2.__version__}", file=sys.stderr)


if __name__ == "__main__":
    main()
