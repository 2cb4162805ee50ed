"""Starts a Ray worker that has variables of its own, without importing Ray for it. Ray starts it as a script.

Ray's script of the same purpose imports all of Ray, sets the variables and becomes the worker, which imports Ray again.
Whatever is asked of it besides variables is left to it. Ray knows such a script by the end of its name.
"""

import json
import os
import sys

CONTEXT = "--serialized-runtime-env-context"
LANGUAGE = "--language"


def main(arguments: list[str]) -> list[str]:
    """Set the variables and return the command of the worker, or of Ray's own script where more is asked for."""
    options, rest = _taken(arguments)
    context = json.loads(options.get(CONTEXT, "{}"))
    variables = context.pop("env_vars", None) or {}
    plain = context.pop("py_executable", None) in (None, sys.executable) and not any(context.values())
    if not plain or options.get(LANGUAGE) != "PYTHON" or any("$" in value for value in variables.values()):
        return [sys.executable, os.path.join(os.path.dirname(rest[0]), "setup_worker.py"), *arguments]
    os.environ.update(variables)
    return [sys.executable, *rest]


def _taken(arguments: list[str]) -> tuple[dict[str, str], list[str]]:
    """Return the options that are for this script, and what is for the worker."""
    options: dict[str, str] = {}
    rest: list[str] = []
    left = iter(arguments)
    for argument in left:
        name, given, value = argument.partition("=")
        if name in (CONTEXT, LANGUAGE):
            options[name] = value if given else next(left)
        else:
            rest.append(argument)
    return options, rest


if __name__ == "__main__":
    command = main(sys.argv[1:])
    os.execv(command[0], command)
