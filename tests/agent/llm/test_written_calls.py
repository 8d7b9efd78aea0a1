"""What models and servers really write: thoughts in the answer, calls as text, names and arguments in odd forms."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agent.llm.answers import Answer, parse_answer
from agent.llm.calls import ArgumentError, calls_in_text, tool_call


def code(gain: int) -> str:
    """A fenced block with a region."""
    return f"```python\ndef initialize_weights(model, config):\n    gain = {gain}\n```\n"


def answer(text: str | None, **message: Any) -> Answer:
    """What is read from a server's body."""
    return parse_answer(json.dumps({"choices": [{"message": {"content": text, **message}}]}), sent_characters=1)


def calls(text: str, *, portable: bool = True) -> list[tuple[str, dict[str, Any]]]:
    """The calls in what is left of a text without its thoughts."""
    return [(one.tool, dict(one.arguments)) for one in calls_in_text(answer(text).text, code=portable)]


def gains(text: str) -> list[str]:
    """What the carried out regions assign."""
    return [arguments["content"].split()[-1] for tool, arguments in calls(text) if tool == "rewrite"]


DRAFTS = {
    "no opening mark": f"First idea:\n{code(1)}No.\n</think>\n{code(2)}",
    "several closing marks": f"<think>{code(1)}</think>\nOr:\n{code(1)}</think>\n{code(2)}",
    "a draft whose fence is not closed": f"```python\n{code(1)[10:-4]}No, I don't like it. </think>\n{code(2)}",
    "[THINK]": f"[THINK]{code(1)}[/THINK]{code(2)}",
    "<thinking>": f"<thinking>\n{code(1)}</thinking>\n{code(2)}",
    "<reasoning>": f"<reasoning>\n{code(1)}</reasoning>\n{code(2)}",
    "harmony": (
        f"<|channel|>analysis<|message|>Try {code(1)}<|end|><|start|>assistant<|channel|>final<|message|>{code(2)}"
    ),
    "harmony whose first header was in the prompt": (
        f"Try {code(1)}<|end|><|start|>assistant<|channel|>final<|message|>{code(2)}<|return|>"
    ),
    "harmony whose marks the server removed": f"analysisTry:\n{code(1)}assistantanalysisNo.assistantfinal\n{code(2)}",
    "gemma 4": f"<|channel>thought\n{code(1)}<channel|>{code(2)}",
    "gemma 4 whose first mark was in the prompt": f"Try:\n{code(1)}<channel|>{code(2)}",
    "an answer in a mark of its own": f"<think>{code(1)}</think><response>{code(2)}</response>",
    "a prefix": f"<longcat_think>\n{code(1)}</longcat_think>\n{code(2)}",
    "a suffix and an attribute": f'<thought_process depth="2">\n{code(1)}</thought_process>\n{code(2)}',
    "bars": f"<|think|>\n{code(1)}<|/think|>\n{code(2)}",
    "spaces": f"< think >\n{code(1)}</ think >\n{code(2)}",
    "<scratchpad>": f"<scratchpad>\n{code(1)}</scratchpad>\n{code(2)}",
    "command": f"<|START_THINKING|>\n{code(1)}<|END_THINKING|><|START_RESPONSE|>{code(2)}<|END_RESPONSE|>",
    "apertus": f"<|inner_prefix|>\n{code(1)}<|inner_suffix|>\n{code(2)}",
    "solar": f"<|think|>\n{code(1)}<|end|><|begin|>assistant<|content|>{code(2)}<|end|>",
    "<|begin_of_thought|>": (
        f"<|begin_of_thought|>{code(1)}<|end_of_thought|>\n\n<|begin_of_solution|>{code(2)}<|end_of_solution|>"
    ),
}


@pytest.mark.parametrize("text", DRAFTS.values(), ids=list(DRAFTS))
def test_a_draft_in_the_thoughts_is_not_tested(text: str) -> None:
    """vLLM's and DeepSeek's templates keep the opening mark: the draft before `</think>` was tested and submitted."""
    assert gains(text) == ["2"]
    assert "gain = 1" in answer(text).reasoning
    assert "gain = 2" not in answer(text).reasoning


@pytest.mark.parametrize("mark", ["<think>", "[THINK]", "<thinking>", "<reasoning>", "<|channel|>analysis<|message|>"])
def test_thoughts_that_never_end_are_no_answer(mark: str) -> None:
    """An answer that was cut in the middle of its thoughts holds no call."""
    said = answer(f"Well.\n{mark}Perhaps\n{code(1)}")
    assert calls_in_text(said.text, code=True) == []
    assert "gain = 1" in said.reasoning


def test_thoughts_beside_a_reasoning_field_are_thoughts_too() -> None:
    """A server that fills its field and leaves a closing mark in the text had its drafts tested."""
    said = answer(f"{code(1)}</think>{code(2)}", reasoning_content="Hm.")
    assert said.reasoning.startswith("Hm.\n\n```python")
    assert (said.reasoning_field, "gain = 1" in said.text) == ("reasoning_content", False)


def test_marks_in_the_code_are_code() -> None:
    """A comment or string of the final block may speak of `</think>`; elsewhere a mark separates."""
    block = code(2).replace("    gain", '    # models end with </think>\n    mark = "<think>"\n    gain')
    assert gains(block) == gains(f"<think>{code(1)}</think>{block}") == ["2"]
    assert answer(block).reasoning == ""
    assert gains(f"The mark `</think>` is mine.\n{code(2)}") == ["2"]


def test_an_end_mark_alone_is_no_thought() -> None:
    """Phi's end of text is `<|end|>`, too; before it stands the answer."""
    assert gains(f"{code(2)}<|end|>") == ["2"]


SUBMIT = '{"name": "submit", "arguments": {"n": 1}}'
WRITTEN = {
    "qwen": f"Done.\n<tool_call>\n{SUBMIT}\n</tool_call>",
    "qwen beside a fence": f"As a sketch:\n{code(1)}and\n<tool_call>{SUBMIT}</tool_call>",
    "a tag in a fence": f"```xml\n<tool_call>{SUBMIT}</tool_call>\n```",
    "a fence in a tag": f"<tool_call>\n```json\n{SUBMIT}\n```\n</tool_call>",
    "qwen coder": "<tool_call>\n<function=submit>\n<parameter=n>\n1\n</parameter>\n</function>\n</tool_call>",
    "llama function": 'I end.\n<function=submit>{"n": 1}</function>',
    "llama": '<|python_tag|>{"name": "submit", "parameters": {"n": "1"}}',
    "mistral list": f"[TOOL_CALLS][{SUBMIT}]",
    "mistral": 'So:[TOOL_CALLS]submit[ARGS]{"n": 1}',
    "a bare list": f"[{SUBMIT}]",
    "chat completions": '{"tool_calls": [{"function": {"name": "submit", "arguments": "{\\"n\\": 1}"}}]}',
    "harmony": (
        "<|channel|>analysis<|message|>So.<|end|><|start|>assistant<|channel|>commentary to=functions.submit "
        '<|constrain|>json<|message|>{"n": 1}<|call|>'
    ),
    "harmony with the name first": (
        '<|start|>assistant to=functions.submit<|channel|>commentary json<|message|>{"n": 1}<|call|>'
    ),
    "kimi": (
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.submit:0<|tool_call_argument_begin|>"
        '{"n": 1}<|tool_call_end|><|tool_calls_section_end|>'
    ),
    "deepseek": (
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>submit\n"
        '```json\n{"n": 1}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>'
    ),
    "deepseek, newer": '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>submit<｜tool▁sep｜>{"n": 1}<｜tool▁call▁end｜>',
    "minimax": '<minimax:tool_call><invoke name="submit"><parameter name="n">1</parameter></invoke>',
    "harmony whose marks the server removed": 'analysisSo.assistantcommentary to=functions.submit json{"n": 1}',
    "gemma 4": "<|tool_call>call:submit{n:1}<tool_call|>",
    "command": '<|START_ACTION|>[{"tool_call_id": "0", "tool_name": "submit", "parameters": {"n": 1}}]<|END_ACTION|>',
    "phi": f"functools[{SUBMIT}]",
    "<tools>": f"<tools>\n{SUBMIT}\n</tools>",
    "a list below prose": f"I submit it.\n\n[{SUBMIT}]",
    "an object below prose": f"I submit it.\n{SUBMIT}\n",
    "an opening tag in the prompt": f"{SUBMIT}\n</tool_call>",
    "a list in Python (Llama 3.2 and 4)": "[submit(n=1)]",
    "the same behind marks": "<|python_start|>[submit(n=1)]<|python_end|><|eot|>",
    "a list in Python below prose": "I submit it.\n\n[submit(n=1)]\n",
    "a call and nothing else": "submit(n=1)",
    "a value without its name": "[submit(1)]",
    "a fence of Gemma 3": "I end.\n```tool_code\nprint(default_api.submit(n=1))\n```",
    "another fence of Gemma 3": "```tool_code\n[submit(n=1)]\n```",
    "olmo 3": "<function_calls>\nsubmit(n=1)\n</function_calls>",
    "lfm 2": "<|tool_call_start|>[submit(n=1)]<|tool_call_end|>",
    "gemma 4 whose marks the server removed": "thought\nI end.\ncall:submit{n:1}",
    "functiongemma": "<start_function_call>call:submit{n:1}<end_function_call>",
    "internlm": f"<|action_start|><|plugin|>{SUBMIT}<|action_end|>",
    "step": '<steptml:invoke name="submit"><steptml:parameter name="n">1</steptml:parameter></steptml:invoke>',
    "xai": '<xai:function_call name="submit"><parameter name="n">1</parameter></xai:function_call>',
    "glm": "<tool_call>submit\n<arg_key>n</arg_key>\n<arg_value>1</arg_value>\n</tool_call>",
}  # fmt: skip


@pytest.mark.parametrize("portable", [True, False])
@pytest.mark.parametrize("text", WRITTEN.values(), ids=list(WRITTEN))
def test_every_known_notation_is_a_call(text: str, portable: bool) -> None:
    """Servers that do not parse a model's calls leave them in the text; they were not carried out."""
    assert calls(text, portable=portable) == [("submit", {"n": 1})]


def test_order_of_the_text_and_several_calls() -> None:
    """Calls in different notations come in the order in which they stand, and code blocks beside them are sketches."""
    text = (
        f'{code(1)}<|tool_call_begin|>functions.undo:0<|tool_call_argument_begin|>{{"n": 2}}<|tool_call_end|>\n'
        f"```json\n{{\"tool\": \"view\"}}\n```\n{code(3)}[TOOL_CALLS]test[ARGS]{{}}[TOOL_CALLS]submit[ARGS]{{\"n\": 1}}"
    )  # fmt: skip
    assert calls(text) == [("undo", {"n": 2}), ("view", {}), ("test", {}), ("submit", {"n": 1})]
    assert calls(f"{SUBMIT}; {SUBMIT}") == [("submit", {"n": 1})] * 2


def test_calls_behind_one_mark() -> None:
    """Llama writes several calls behind one `<|python_tag|>`; only the first was carried out."""
    assert calls(f'<|python_tag|>{{"name": "test", "parameters": {{}}}}; {SUBMIT}') == [
        ("test", {}),
        ("submit", {"n": 1}),
    ]


def test_calls_in_python() -> None:
    """Texts keep their lines, also where a model breaks a short string; several calls stand in a list or on lines."""
    edits = [("edit", {"op": "insert", "after_line": -1, "content": 'x = "1"\n  y\n'}), ("test", {})]
    content = r'"x = \"1\"\n  y\n"'
    for text in (
        f'[edit(op="insert", after_line=-1, content={content}), test()]',
        f"```tool_code\nedit(op='insert', after_line=-1, content={content})\ntest()\n```",
        "<function_calls>\nedit(op='insert', after_line=-1, content='x = \"1\"\n  y\n')\ntest()\n</function_calls>",
        '[edit(op="insert", after_line=-1, content="""x = "1"\n  y\n""")]\n[test(),]',
        "[edit(op='insert', after_line=-1, content=['x = \"1\"', '  y', ''])]\n[test()]",
    ):
        assert calls(text) == calls(text, portable=False) == edits, text
    assert calls(r'[edit(content="a\d"), view(n=None, all=True)]') == [
        ("edit", {"content": r"a\d"}),
        ("view", {"n": None, "all": True}),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "I would call [submit(n=1)] now.",
        "Then\nsubmit(n=1)\nwould end it.",
        "[submit(n=1)](https://example.org) is a link",
        "```python\nsubmit(n=1)\n```",
        "```python\n[submit(n=one) for one in tests]\n```",
        "[get_weather(city='x')]",
        "[submit(n=1)",
        "[submit(n='1]",
        "[submit(n=1) + submit(n=2)]",
        "[submit(n=len('1'))]",
        "[submit(n=__import__('os').getpid())]",
        "[submit(**{'n': 1})]",
        "[submit(n=f'{1}')]",
        "[submit(1, 2)]",
        "[submit(n=1j)]",
        "[submit(n=1e999)]",
        "[submit(n=0x" + "f" * 100 + ")]",
        "[submit(n=" + "[" * 50 + "]" * 50 + ")]",
        "[submit(n=" + "-" * 50_000 + "1)]",
        "[submit(n=1\x00)]",
        "submit(n=1) and wait",
    ],
    ids=str.__len__,
)
def test_python_that_is_no_call(text: str) -> None:
    """Prose, code and anything that would have to be evaluated is not carried out."""
    assert calls(text) == []


def test_json_below_a_region_does_not_replace_it() -> None:
    """Without a mark JSON is a call like a fenced one: the region above it is carried out, too."""
    assert [tool for tool, _ in calls(f"{code(1)}\n{SUBMIT}\n")] == ["rewrite", "test", "submit"]
    assert calls(f'Results such as {SUBMIT} are examples.\n{{"name": "submit"}} is none either') == []


def test_texts_in_gemmas_notation() -> None:
    """Gemma 4 puts a mark of its own in place of quotation marks; the text between is kept as it stands."""
    content = "    names = {'a': \"b\"}\n    # op: none"
    written = f'<|tool_call>call:edit{{op:<|"|>insert<|"|>,after_line:3,content:<|"|>{content}<|"|>}}<tool_call|>'
    assert calls(written) == [("edit", {"op": "insert", "after_line": 3, "content": content})]


def test_calls_in_gemmas_notation_without_marks() -> None:
    """Each ends with its line."""
    assert calls("thought\nI test.\ncall:test{}\ncall:submit{n:1}\nDone.") == [("test", {}), ("submit", {"n": 1})]
    assert calls("I call:submit{n:1} in a sentence.") == []


def test_lines_of_a_parameter_are_kept() -> None:
    """Qwen-Coder writes a value between line breaks; its indentation and its own marks belong to it."""
    content = "    x = 1\n\n    # <tool_call> </think>"
    text = (
        "<function=edit>\n<parameter=op>\nreplace\n</parameter>\n<parameter=start_line>\n3\n</parameter>\n"
        f"<parameter=content>\n{content}\n</parameter>\n</function>"
    )
    found = calls_in_text(text, code=False)
    assert [dict(one.arguments) for one in found] == [{"op": "replace", "start_line": 3, "content": content}]


def test_a_call_that_code_only_mentions_is_none() -> None:
    """A notation inside a Python block or inside a JSON text is part of it."""
    block = code(2).replace("    gain", f"    # <tool_call>{SUBMIT}</tool_call>\n    gain")
    assert gains(block) == ["2"]
    assert calls_in_text(block, code=False) == []
    text = json.dumps({"tool": "rewrite", "content": f"# [TOOL_CALLS][{SUBMIT}]"})
    assert [tool for tool, _ in calls(text)] == ["rewrite"]


def test_arguments_that_break_off_are_told() -> None:
    """The model reads why its call was not carried out."""
    with pytest.raises(ArgumentError, match="Failed to parse"):
        calls_in_text('[TOOL_CALLS]submit[ARGS]{"n": ', code=True)
    assert calls("[TOOL_CALLS]read[ARGS]{} <function=read></function> <tool_call>read</tool_call>") == []


@pytest.mark.parametrize("name", ["submit", "functions.submit", "submit<|channel|>commentary", " submit ", "submit:0"])
@pytest.mark.parametrize("arguments", ['{"n": 1}', json.dumps('{"n": 1}'), json.dumps(json.dumps('{"n": 1}'))])
def test_names_and_arguments_are_unwrapped(name: str, arguments: str) -> None:
    """Servers leave parts of the template around a name and encode arguments twice: "Unknown tool" was the reply."""
    assert tool_call(name, arguments) == tool_call("submit", '{"n": 1}')
    (wire,) = answer("", tool_calls=[{"id": "1", "function": {"name": name, "arguments": arguments}}]).calls
    assert (wire.name, json.loads(wire.arguments)) == ("submit", {"n": 1})


@pytest.mark.parametrize("arguments", ['{}{"n": 1}', '{"n": 1}{"n": 1}', "{'n': 1}", '{"n": 1,}', "{'n': 1, }\n"])
def test_arguments_in_almost_json(arguments: str) -> None:
    """A gateway joins an empty object and the full one, and a local server prints a dict as Python does."""
    assert tool_call("submit", arguments) == tool_call("submit", '{"n": 1}')


@pytest.mark.parametrize("arguments", ['{"n": 1}{"n": 2}', "{'n': f()}", "{'n': 1j}", "{'n'", "{'n': 1} x", "(1,)"])
def test_arguments_that_mean_nothing(arguments: str) -> None:
    """Two different objects, or what would have to be run, are told as before."""
    with pytest.raises(ArgumentError, match="Failed to parse"):
        tool_call("submit", arguments)


@pytest.mark.parametrize("arguments", ["", " ", "null", "[]", '""', "{}", '"{}"', "\n"])
def test_no_arguments_in_many_words(arguments: str) -> None:
    """A test has none, and each server writes that differently."""
    assert tool_call("test", arguments) == tool_call("test", "{}")


def test_calls_as_one_object_and_without_a_function() -> None:
    """`tool_calls` may be one object, and an entry may have its name and arguments at the top."""
    nested = {"id": "a", "function": {"name": "test", "arguments": {}}}
    flat = {"id": "a", "name": "test", "arguments": {}}
    named = {"id": "a", "type": "function", "function": "test", "parameters": {}}
    assert (
        answer("", tool_calls=nested).calls == answer("", tool_calls=[flat]).calls == answer("", tool_calls=named).calls
    )
    assert [(call.id, call.name, call.arguments) for call in answer("", tool_calls=flat).calls] == [("a", "test", "{}")]
