"""Settings of servers: what may be sent beside what is sent anyway."""

from typing import Any

import pytest

from distributed_tuner.config.oracle import OpenAIOracleConfig
from distributed_tuner.config.proposer import OpenAIProposerConfig


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"reasoning_effort": "minimal", "chat_template_kwargs": {"enable_thinking": False}},
        {"stream": False, "temperature": 1, "seed": 7, "models": ["meta-llama/Llama-3.1-8B-Instruct", None]},
        {"guided_choice": ["good", "bad"], "logit_bias": {"15": -100}},
    ],
)
def test_fields_that_nobody_else_sets_may_be_sent(body: dict[str, Any]) -> None:
    config = OpenAIOracleConfig(kind="openai", model="m", extra_body=body)
    assert OpenAIOracleConfig.model_validate_json(config.model_dump_json()) == config
    assert config.extra_body == body


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"max_tokens": 3}, "'max_tokens' is one of them; set oracle.max_tokens"),
        ({"top_logprobs": 3}, "set oracle.top_logprobs"),
        ({"messages": []}, "set oracle.system"),
        ({"n": 2}, "'n' is one of them; leave it out"),
        ({"stream": True}, "answers are read whole"),
        ({"a": {"b": [{"access_token": "x"}]}}, "look like a key"),
    ],
)
def test_what_has_a_setting_of_its_own_or_is_a_key_is_refused(body: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        OpenAIOracleConfig(kind="openai", model="m", extra_body=body)


def test_a_proposers_settings_are_its_own() -> None:
    with pytest.raises(ValueError, match=r"set proposer\.temperature"):
        OpenAIProposerConfig(kind="openai", model="m", extra_body={"temperature": 1})
    assert OpenAIProposerConfig(kind="openai", model="m", extra_body={"top_p": 0.9}).extra_body


def test_a_system_message_is_a_chats() -> None:
    with pytest.raises(ValueError, match="set api: chat"):
        OpenAIOracleConfig(kind="openai", model="m", api="completions", system="Say one word.")
