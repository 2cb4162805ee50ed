"""Reading a search space: YAML with distribution tags, and ``--set path=value`` on top of it."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from distributed_tuner.config.distributions import TAGS, Distribution, from_tag
from distributed_tuner.errors import ConfigError

_STR = "tag:yaml.org,2002:str"
_MERGE = "tag:yaml.org,2002:merge"
LABEL_WORDS = ("label_words", "verbalizers")


class _SpaceLoader(yaml.SafeLoader):
    """SafeLoader with the distribution tags; duplicate keys are refused, and label words are text as it is written."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, value_node in node.value:
            if key_node.value in LABEL_WORDS:
                _keep_words(value_node)
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, dict | list):
                raise ConfigError(
                    f"a key must be a word or a number, but this one is {key!r} ({_where(key_node.start_mark)});"
                    " quote it if braces or brackets are meant as text"
                )
            if key in seen:
                raise ConfigError(
                    f"a key may occur once, but {key!r} occurs twice ({_where(key_node.start_mark)}); remove one"
                )
            seen.add(key)
        return super().construct_mapping(node, deep=True)


def _keep_words(node: yaml.Node) -> None:
    """Have labels and their words read as they are written, where YAML makes booleans, numbers or nothing of `no`,
    `1.0` or `null`. ``node`` is a mapping from labels to words, a list of such, or a distribution over them.
    """
    for option in node.value if isinstance(node, yaml.SequenceNode) else [node]:
        for label, word in option.value if isinstance(option, yaml.MappingNode) else []:
            for part in (label, *(word.value if isinstance(word, yaml.SequenceNode) else [word])):
                _keep_text(part)


def _keep_text(node: yaml.Node) -> None:
    if isinstance(node, yaml.ScalarNode) and node.tag != _MERGE:
        node.tag = _STR


def _text(loader: _SpaceLoader, node: yaml.ScalarNode) -> str:
    """Return a text, with characters put together that are escaped in two halves, as JSON writes emojis."""
    text: str = loader.construct_scalar(node)
    try:
        return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise ConfigError(
            f"a text must hold whole characters, but {text!r} has half of a surrogate pair"
            f" ({_where(node.start_mark)}); write the character itself"
        ) from None


def _construct(loader: _SpaceLoader, suffix: str, node: yaml.Node) -> Distribution:
    where = _where(node.start_mark)
    if suffix not in TAGS:
        near = difflib.get_close_matches(suffix, TAGS, n=1)
        advice = f"did you mean !{near[0]}?" if near else "known: " + ", ".join("!" + tag for tag in TAGS)
        raise ConfigError(f"!{suffix} is not a known distribution ({where}); {advice}")
    if not isinstance(node, yaml.SequenceNode):
        raise ConfigError(f"!{suffix} needs a list ({where}); write !{suffix} [...]")
    return from_tag(suffix, loader.construct_sequence(node, deep=True), where)


_SpaceLoader.add_constructor(_STR, _text)
_SpaceLoader.add_multi_constructor("!", _construct)


def load_space(path: Path, overrides: list[str] | None = None) -> dict[str, Any]:
    """Read a search space and apply the overrides. Returns the tree, not yet validated.

    Raises:
        ConfigError: no such file, not YAML, not a mapping, or an override that fits nowhere.
    """
    if not path.is_file():
        near = sorted(p.name for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        known = f" ({path.parent} has {', '.join(near)})" if near else ""
        raise ConfigError(
            f"a search space must be a YAML file, but there is none at {str(path)!r}{known}; check the path"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"a search space must be UTF-8 text, but {path} is not ({error.reason} at byte {error.start}); save it so"
        ) from None
    tree: dict[str, Any] = parse(text, str(path))
    if not isinstance(tree, dict):
        raise ConfigError(
            f"a search space must be a mapping, but {path} holds {type(tree).__name__}; start with `name: ...`"
        )
    for override in overrides or []:
        tree = apply_override(tree, override)
    return tree


def parse(text: str, name: str = "text", path: Sequence[str] = ()) -> Any:
    """Parse YAML with distribution tags. ``path``: of the place in a space that the text is for.

    Raises:
        ConfigError: it is not YAML; names line and column.
    """
    try:
        loader = _SpaceLoader(text)
    except yaml.reader.ReaderError as error:
        raise ConfigError(
            f"a search space must be YAML, but {name} holds the character {error.character!r} at {error.position};"
            " remove it"
        ) from None
    loader.name = name
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if path and path[-1] in LABEL_WORDS:
            _keep_words(node)
        elif LABEL_WORDS[0] in path:
            _keep_text(node)
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = _where(mark) if mark else name
        raise ConfigError(f"a search space must be YAML, but {where}: {error.problem}; mend the line") from None
    finally:
        loader.dispose()


def apply_override(tree: dict[str, Any], override: str) -> dict[str, Any]:
    """Return the tree with ``path=value`` set; the value is YAML, tags included.

    The path is written from the root (stages.0.optimizer.rho), or from any mapping whose name occurs once
    (optimizer.rho). A key that the YAML leaves out may be set; whether it is known is checked afterwards.

    Raises:
        ConfigError: no "=", no such place, or several of them.
    """
    path, separator, value = override.partition("=")
    if not separator or not path:
        raise ConfigError(f"--set needs path=value, but got {override!r}; write --set budget.queries=500")
    parts = path.strip().split(".")
    places = [()] if _is_root(parts, tree) else _places(tree, parts[0])
    if not places:
        places = [()]
    if len(places) > 1:
        full = ", ".join(".".join(map(str, (*place, *parts))) for place in places)
        raise ConfigError(f"--set {path} must fit one place, but fits {full}; write one of these paths")
    changed: dict[str, Any] = _set(tree, [*places[0], *parts], parse(value, f"--set {path}", parts), path)
    return changed


def _is_root(parts: list[str], tree: dict[str, Any]) -> bool:
    return len(parts) == 1 or parts[0] in tree


def _places(tree: Any, name: str, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    if isinstance(tree, dict) and name in tree:
        found.append(path)
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in children:
        found.extend(_places(value, name, (*path, key)))
    return found


def _set(tree: Any, parts: list[Any], value: Any, path: str) -> Any:
    if not parts:
        return value
    head, rest = parts[0], parts[1:]
    if isinstance(tree, list):
        if not str(head).isdigit() or int(head) >= len(tree):
            raise ConfigError(f"--set {path}: {head!r} is no index of a list of {len(tree)}; use 0 to {len(tree) - 1}")
        return [_set(child, rest, value, path) if i == int(head) else child for i, child in enumerate(tree)]
    if isinstance(tree, Distribution):
        raise ConfigError(
            f"--set {path}: {head!r} lies inside a distribution; set the whole of it, for example with !grid [...]"
        )
    if not isinstance(tree, dict) and tree is not None:
        raise ConfigError(f"--set {path}: {head!r} lies inside {tree!r}, which is no mapping; check the path")
    tree = tree or {}
    return {**tree, head: _set(tree.get(head), rest, value, path)}


def _where(mark: Any) -> str:
    return f"{mark.name}, line {mark.line + 1}, column {mark.column + 1}"
