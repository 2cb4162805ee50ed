"""Builds what is installed; all that is not said here is in pyproject.toml.

In a checkout what touches Ray is the package ``actors``, a name that anybody may have. Installed, the same modules are
``distributed_tuner.actors``: they are copied there, and imports of them are written so. search_spaces/ goes along as
data. A checkout that is linked (``pip install -e``) stays what it is.
"""

import re
import sys
import tempfile
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

CORE = "distributed_tuner"
IMPORT = re.compile(r"^(\s*(?:from|import) )actors\b", re.MULTILINE)


class BuildPy(build_py):
    """Writes ``from actors.pool import`` as ``from distributed_tuner.actors.pool import``."""

    def build_module(self, module: str, module_file: str, package: str) -> object:
        built = super().build_module(module, module_file, package)
        path = Path(self.get_module_outfile(self.build_lib, package.split("."), module))
        text = path.read_text(encoding="utf-8")
        path.write_text(IMPORT.sub(rf"\1{CORE}.actors", text), encoding="utf-8")
        return built


own = find_packages(include=[CORE, f"{CORE}.*"])
remote = find_packages(include=["actors", "actors.*"])
if "editable_wheel" in sys.argv:
    setup(packages=own + remote)
else:
    folders = {f"{CORE}.{name}": name.replace(".", "/") for name in remote} | {f"{CORE}.search_spaces": "search_spaces"}
    with tempfile.TemporaryDirectory() as build:  # and not build/ in the checkout, which keeps modules that have moved
        options = {"build": {"build_base": build}}
        setup(packages=[*own, *folders], package_dir=folders, cmdclass={"build_py": BuildPy}, options=options)
