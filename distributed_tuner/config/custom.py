"""Settings of a part of the user's own: which class it is, where its module lies, and what it is made with.

Nothing is imported here: settings are read by commands that must run no code, such as ``report``.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, JsonValue

from distributed_tuner.config.base import MODULES, OWN_CODE, Config

AnyConfig = TypeVar("AnyConfig", bound=Config)


class CustomPart(Config):
    """Settings common to users' own parts; ``distributed_tuner.custom`` imports and builds them."""

    kind: Literal["custom"] = "custom"
    import_path: Annotated[str, OWN_CODE] = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")
    """The class, as ``package.module:Class``."""
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    """Keyword arguments of its constructor, in addition to those of its family's contract."""
    folders: Annotated[tuple[str, ...], MODULES] = ()
    """Folders in which its module is looked for, beside the search space's own and the current one. In a run's
    config.json all of them."""

    @property
    def class_name(self) -> str:
        """The class without its module."""
        return self.import_path.rpartition(":")[2]


def parts_of(config: Config) -> list[CustomPart]:
    """Return every part of the user's own within some settings."""
    found: list[CustomPart] = []

    def see(part: CustomPart) -> CustomPart:
        found.append(part)
        return part

    with_parts(config, see)
    return found


def with_parts(config: AnyConfig, change: Callable[[CustomPart], CustomPart]) -> AnyConfig:
    """Return settings with every part of the user's own in them changed."""
    changed: Any = change(config) if isinstance(config, CustomPart) else config

    def walked(value: Any) -> Any:
        if isinstance(value, Config):
            return with_parts(value, change)
        return tuple(map(walked, value)) if isinstance(value, tuple) else value

    old = {name: getattr(changed, name) for name in type(changed).model_fields}
    new = {name: walked(value) for name, value in old.items()}
    update = {name: value for name, value in new.items() if value != old[name]}
    return changed.model_copy(update=update) if update else changed  # type: ignore[no-any-return]
