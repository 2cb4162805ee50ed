"""Modules that other packages import for what is not used here: loaded when something of them is asked for, if ever."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any


class Later(ModuleType):
    """Placeholder of a module until ``load``; imports made before then reach the module itself.

    ``stand_ins``: names that an importer takes from it at once, as annotations or for classes that it may want to make.
    """

    def __init__(self, name: str, *stand_ins: str) -> None:
        super().__init__(name)
        self._stand_ins: dict[str, Any] = {one: _maker(name, one) for one in stand_ins}
        if stand_ins:
            self._stand_ins["__path__"] = []  # asked for by `from module import name`

    def __getattr__(self, name: str) -> Any:
        if name in self._stand_ins:
            return self._stand_ins[name]
        self.load()
        return getattr(import_module(self.__name__), name)

    def load(self) -> None:
        """Replace it by the module itself, for later imports."""
        self._stand_ins = {}
        package, _, child = self.__name__.rpartition(".")
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        if package and vars(sys.modules[package]).get(child) is self:
            delattr(sys.modules[package], child)


@contextmanager
def postponed(*modules: Later) -> Iterator[None]:
    """Have imports within the block find these in place of the modules that are installed and not loaded yet."""
    placed = [one for one in modules if one.__name__ not in sys.modules and find_spec(one.__name__) is not None]
    sys.modules.update({one.__name__: one for one in placed})
    try:
        yield
    finally:
        for one in placed:
            one.load()


def _maker(module: str, name: str) -> type:
    """Return a class that makes instances of a module's class."""

    def make(cls: type, *arguments: Any, **named: Any) -> Any:
        return getattr(import_module(module), name)(*arguments, **named)

    return type(name, (), {"__new__": make})
