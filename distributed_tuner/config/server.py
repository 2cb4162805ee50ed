"""Settings of a server that speaks OpenAI's API, as everybody has them who asks one."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

from pydantic import Field, JsonValue, field_validator

from distributed_tuner.config.base import MODEL, SERVER, VARIABLE, Config
from distributed_tuner.shown import masked

KEY_NAME = r"^[A-Z_][A-Z0-9_]*$"  # keys themselves have small letters in them
SERVER_URL = r"^https?://(\[[0-9a-fA-F:.]+\]|[\w.~-]+)(:\d{1,5})?(/[^\s?#@]*)?$"
SECRET_NAME = re.compile(
    r"api.?key|authorization|password|secret|credential|(access|auth|bearer).?token", re.IGNORECASE
)


class ServerConfig(Config):
    """A server, the model on it, and how long and how often it is asked.

    Base of the settings of oracles (``Server``) and of proposers.

    Raises:
        ValidationError: a setting breaks a rule, or is not known; the message names it.

    Example: what is sent with every request is checked, and holds no key.
        >>> from distributed_tuner.config.server import ServerConfig
        >>> ServerConfig(model="gpt-5-mini", extra_body={"reasoning_effort": "minimal"}).timeout
        60.0
    """

    set_elsewhere: ClassVar[dict[str, str]] = {}
    """Fields of a request that have settings of their own, which ``extra_body`` may not set; "": no setting has it."""

    model: Annotated[str, MODEL] = Field(min_length=1)
    """The server's name of the model."""
    base_url: Annotated[str | None, SERVER] = Field(None, pattern=SERVER_URL)
    """URL of the server up to ``/v1``, without user, password or query; none: that of OPENAI_BASE_URL, else OpenAI's
    own. Redirects are not followed."""
    api_key_env: Annotated[str, VARIABLE] = Field("OPENAI_API_KEY", pattern=KEY_NAME)
    """Environment variable, in capitals, that holds the key; with ``_FILE`` behind it, one that names a file with the
    key. The key itself never stands in the settings."""
    system: str = ""
    """A chat's system message, in front of every prompt; none where it is empty."""
    extra_body: dict[str, JsonValue] = Field(default_factory=dict)
    """Further fields of every request, as the server takes them: ``reasoning_effort: minimal``,
    ``chat_template_kwargs: {enable_thinking: false}``. They are part of the numbers, and hold no key."""
    timeout: float = Field(60.0, gt=0)
    """Seconds that one attempt at a request may take, its answer's last byte included."""
    attempts: int = Field(4, ge=1)
    """Attempts at a request that a busy or failing server refuses, with growing pauses, or as long as its Retry-After
    says."""
    longest_pause: float = Field(120.0, gt=0)
    """Seconds that are waited at most where Retry-After says more."""

    @field_validator("extra_body")
    @classmethod
    def _adds_what_is_nobody_elses(cls, body: dict[str, JsonValue]) -> dict[str, JsonValue]:
        for name in body:
            if name == "stream" and body[name]:
                raise ValueError("answers are read whole, so extra_body may say no more of stream than false")
            if (owner := cls.set_elsewhere.get(name)) is not None:
                advice = f"set {owner}" if owner else "leave it out"
                raise ValueError(
                    f"extra_body adds fields that no other setting sets, but {name!r} is one of them; {advice}"
                )
        if any(SECRET_NAME.search(name) or masked(value) != value for name, value in _texts(body)):
            raise ValueError("extra_body is written down with the run, so no field of it may be or look like a key")
        return body


def _texts(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield the texts of a JSON value, each with the name that it goes by."""
    match value:
        case str():
            yield name, value
        case dict():
            for key, item in value.items():
                yield from _texts(item, key)
        case list():
            for item in value:
                yield from _texts(item, name)
