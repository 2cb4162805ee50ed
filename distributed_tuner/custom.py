"""Parts of the user's own: their classes are imported by path, held against their family's contract, and made.

Code of the user's runs where a part is made, and nowhere else: ``check``, ``run``, ``evaluate`` and ``predict`` make
parts; ``report`` and ``export`` read settings alone. Docs: docs/extending.md.
"""

import difflib
import functools
import importlib.util
import inspect
import itertools
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from distributed_tuner.config.base import Config
from distributed_tuner.config.custom import CustomPart, parts_of, with_parts
from distributed_tuner.errors import ConfigError, PartError, TunerError

AnyConfig = TypeVar("AnyConfig", bound=Config)

GIVEN = "given"  # the module of what was handed in as an object and has no import path
WORDS = 1600  # that a head reads which needs more than the label words
LEDGER = "ledger.jsonl"  # by which a run directory is known
MOST_WORDS_SHOWN = 300  # characters of what a part's own code said

_given: dict[str, Any] = {}
_numbers = itertools.count(1)


# ---------------------------------------------------------------------------------------------------- where it lies
def with_folders(config: AnyConfig, root: Path) -> AnyConfig:
    """Return settings whose parts are looked for in the folder of the search space and in the current one as well.

    root: the folder of the search space, from which relative ``folders`` are meant. A folder within the current one is
    named in both ways: the working directory of a job lies elsewhere on other machines.
    """

    def filled(part: CustomPart) -> CustomPart:
        there = [os.path.abspath(root / folder) for folder in ("", *part.folders)]
        here = os.getcwd()
        within = [os.path.relpath(folder, here) for folder in there if Path(folder).is_relative_to(here)]
        return part.model_copy(update={"folders": tuple(dict.fromkeys([*there, here, *within]))})

    return with_parts(config, filled)


def path_of(part: Any) -> str:
    """Return an import path for a class or function that was handed in as an object.

    What cannot be imported by its name (a class of a function, an object, a lambda) has one within this process alone:
    other processes, such as actors of a pool, refuse it.
    """
    module, name = getattr(part, "__module__", None), getattr(part, "__qualname__", None)
    if module and name and "<" not in name and _attribute(sys.modules.get(module), name) is part:
        return f"{module}:{name}"
    known = next((key for key, given in _given.items() if given is part), None)
    if known is None:
        known = f"part_{next(_numbers)}"
        _given[known] = part
    return f"{GIVEN}:{known}"


def described(part: Any) -> dict[str, Any] | None:
    """Return the settings of a part that was handed in as a class, or as ``functools.partial(Class, **settings)``; None
    of anything else."""
    settings: dict[str, Any] = {}
    if isinstance(part, functools.partial):
        if part.args:
            raise ConfigError(
                f"settings of a part are keyword arguments, but partial has {len(part.args)} others; name them"
            )
        part, settings = part.func, dict(part.keywords)
    if not isinstance(part, type) or issubclass(part, Config):
        return None
    told: dict[str, Any] = {"kind": "custom", "import_path": path_of(part), "settings": settings}
    if getattr(part, "is_discrete", False):
        told["space"] = "words"
    if getattr(part, "words_needed", False):
        told["words"] = WORDS
    return told


def require_importable(config: Config) -> None:
    """Check that other processes can import every part.

    Raises:
        ConfigError: one is known to this process alone.
    """
    for part in parts_of(config):
        if part.import_path.partition(":")[0] in (GIVEN, "__main__"):
            raise ConfigError(
                f"actors of a pool import a part by its module's name, but {part.import_path} is known to this process"
                " alone; put its class into a module of its own, or leave pool out"
            )


# ---------------------------------------------------------------------------------------------------- importing
def imported(part: CustomPart) -> Callable[..., Any]:
    """Import what a part names.

    Raises:
        ConfigError: there is no such module or name, or the module cannot be imported; says where it was looked for.
    """
    name, _, wanted = part.import_path.partition(":")
    if name == GIVEN:
        if wanted not in _given:
            raise ConfigError(
                f"an object that has no import path of its own ({part.import_path}) is known to the process that it was"
                " given to alone; put its class into a module, and give import_path: module:Class"
            )
        module, found = None, _given[wanted]
    else:
        module = _module(part, name)
        found = _attribute(module, wanted)
    if found is None:
        known = [one for one in dir(module) if not one.startswith("_")]
        near = difflib.get_close_matches(wanted, known, n=1)
        advice = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known[:8]) or 'nothing'}"
        if name == "__main__":
            advice = "put it into a module of its own, which other processes can import"
        raise ConfigError(f"import_path names a class of a module, but {name} has no {wanted!r}; {advice}")
    if not callable(found):
        raise ConfigError(f"import_path names a class, but {part.import_path} is {_sort(found)}; name its class")
    return found  # type: ignore[no-any-return]


def _module(part: CustomPart, name: str) -> Any:
    """Import a module, each package above it first."""
    folders = list(dict.fromkeys(map(os.path.abspath, ("", *part.folders))))
    sys.path += [folder for folder in folders if folder not in sys.path]  # last: what is installed is never shadowed
    importlib.invalidate_caches()
    module, above = None, ""
    for inner in name.split("."):
        above = f"{above}.{inner}".lstrip(".")
        _require_found(part, above, folders)
        try:
            module = importlib.import_module(above)
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"the module {above} must be importable, but it imports {error.name!r}, which this Python does not"
                " have; install that"
            ) from error
        except (Exception, SystemExit) as error:
            raise ConfigError(f"the module {above} must be importable, but {raised(error)}; mend it there") from error
    return module


def _require_found(part: CustomPart, name: str, folders: Sequence[str]) -> None:
    """Check that a module is there, and not in a run directory: these are given away, and no code comes with them."""
    if name in sys.modules:
        return
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:  # what is above it is no package
        spec = None
    if spec is None:
        raise ConfigError(
            f"import_path names a module that Python finds, but there is no module {name!r} (of {part.import_path}),"
            f" neither installed nor in {', '.join(folders)}; put it next to the search space, or name its folder in"
            " folders"
        )
    for folder in () if spec.origin is None else Path(spec.origin).parents:
        if (folder / LEDGER).exists():
            raise ConfigError(
                f"a run directory holds no code that is run, but {part.import_path} lies in {folder}; move the module"
                " beside the search space, if you trust it"
            )


def _attribute(holder: Any, name: str) -> Any:
    for part in name.split("."):
        holder = getattr(holder, part, None)
    return holder


# ---------------------------------------------------------------------------------------------------- making
def subclass(part: CustomPart, base: type, further: Sequence[str] = ()) -> type:
    """Import a part and return its class, which derives from ``base`` and has all that it leaves to its members.

    further: methods that members must write beside the abstract ones.

    Raises:
        ConfigError: it cannot be imported, derives from something else, or lacks a method.
    """
    found = imported(part)
    family = f"{base.__module__}.{base.__qualname__}"
    if not isinstance(found, type) or not issubclass(found, base):
        raise ConfigError(
            f"{part.import_path} must be a subclass of {family}, but is {_sort(found)}; derive it from that class"
            " (docs/extending.md)"
        )
    lacking = [*getattr(found, "__abstractmethods__", ())]
    lacking += [name for name in further if getattr(found, name) is getattr(base, name)]
    if lacking:
        raise ConfigError(
            f"a subclass of {family} must have all of its methods, but {part.import_path} lacks"
            f" {', '.join(sorted(lacking))}; write them (docs/extending.md)"
        )
    return found


def made(part: CustomPart, build: Callable[..., Any], given: Mapping[str, Any]) -> Any:
    """Make a part: ``build(**given, **settings)``.

    Raises:
        ConfigError: its constructor does not take these arguments, or refuses them.
    """
    if taken := sorted(given.keys() & part.settings.keys()):
        raise ConfigError(
            f"settings are arguments in addition to those of the run, but {part.import_path} is"
            f" given {', '.join(taken)} already; rename it in settings and in the constructor"
        )
    signature = _signature(build)
    if signature is not None:
        try:
            signature.bind(**given, **part.settings)
        except TypeError as error:
            raise ConfigError(
                f"{part.import_path} is made with {', '.join([*given, 'its settings']) or 'its settings'}, but its"
                f" constructor {signature} does not take these ({error}); change settings or the constructor"
            ) from error
    try:
        return build(**given, **part.settings)
    except TunerError:
        raise
    except Exception as error:
        raise ConfigError(
            f"{part.import_path} must be made of its settings ({_listed(part.settings)}), but {raised(error)}; change"
            " settings, or mend it there"
        ) from error


def require_methods(part: CustomPart, thing: Any, names: Sequence[str], family: type) -> None:
    """Check that an object has the attributes of its family's protocol.

    Raises:
        ConfigError: it lacks some.
    """
    lacking = [name for name in names if not hasattr(thing, name)]
    if lacking:
        raise ConfigError(
            f"{part.import_path} must do what {family.__module__}.{family.__qualname__} says, but lacks"
            f" {', '.join(lacking)}; write them (docs/extending.md)"
        )


# ---------------------------------------------------------------------------------------------------- what it raises
@contextmanager
def promised(whose: str, what: str) -> Iterator[None]:
    """Turn whatever a part raises at what its contract promises into one line that says where."""
    try:
        yield
    except TunerError:
        raise
    except Exception as error:
        raise PartError(f"{whose} must {what}, but {raised(error)}; mend it there, or choose another") from error


def raised(error: BaseException) -> str:
    """Return what was raised and where, in one line."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    words = " ".join(str(error).split())[:MOST_WORDS_SHOWN] or "no message"
    return f"it raised {type(error).__name__}: {words} ({frame.filename}, line {frame.lineno})"


def _signature(build: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(build)
    except (TypeError, ValueError):  # of a class in C
        return None


def _listed(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in settings.items()) or "none"


def _sort(found: Any) -> str:
    return f"the class {found.__qualname__}" if isinstance(found, type) else f"of type {type(found).__name__}"
