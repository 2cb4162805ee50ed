"""Errors cross process borders: what arrives is what was raised."""

import copy
import inspect
import pickle

import pytest

from distributed_tuner import errors

ALL = [
    member
    for _, member in inspect.getmembers(errors, inspect.isclass)
    if issubclass(member, errors.TunerError) and member.__module__ == errors.__name__
]


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("carry", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy], ids=["pickle", "copy"])
def test_an_error_arrives_with_its_type_and_message(kind, carry) -> None:  # type: ignore[no-untyped-def]
    sent = kind("the rule is x > 0, but got -1; set x")
    arrived = carry(sent)
    assert type(arrived) is kind
    assert str(arrived) == str(sent) == "the rule is x > 0, but got -1; set x"
    assert arrived.args == sent.args
    assert arrived.exit_code == sent.exit_code


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_a_message_steers_no_terminal_and_holds_no_key(kind: type[errors.TunerError]) -> None:
    shown = str(kind("a name: \x1b[31mred\x07\nand \u202egreen, key sk-proj-0123456789abcdef"))
    assert shown == "a name:  [31mred  and  green, key sk-***"


def test_exit_statuses_tell_bad_input_from_a_small_budget_and_a_full_disk() -> None:
    assert {kind.__name__: kind.exit_code for kind in ALL if kind.exit_code != 2} == {
        "BudgetTooSmall": 3,
        "StorageError": 1,
    }
    assert len(ALL) >= 10


@pytest.mark.parametrize(
    ("kind", "builtin"), [("ConfigError", ValueError), ("RunDirectoryError", OSError), ("OracleError", RuntimeError)]
)
def test_errors_are_caught_by_their_builtin_names_too(kind: str, builtin: type[Exception]) -> None:
    with pytest.raises(builtin):
        raise getattr(errors, kind)("message")
