import logging

import pytest

from distributed_tuner.errors import TaskError
from distributed_tuner.tasks.templates import Template


def test_text_ends_with_the_last_column_and_the_cue_with_the_label_word():
    template = Template.parse("Premise: {premise} Claim: {hypothesis} . True?{label_word}")
    rendered = template.render({"premise": "A dog runs.", "hypothesis": "A dog moves."})
    assert rendered.text == "Premise: A dog runs. Claim: A dog moves."
    assert rendered.cue == " . True?"
    assert rendered.tail == ""
    assert template.columns == ("premise", "hypothesis")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{text} It was {label_word}", ["bad", "great"]),
        ("{text} It was{label_word}", [" bad", " great"]),
        ("{text} It was {label_word}", [" bad", " great"]),
        ("{text} It was   {label_word}\n", ["bad", " great"]),
    ],
)
def test_the_space_before_the_label_word_belongs_to_it(source, words):
    template = Template.parse(source)
    assert template.cue == " It was"
    assert template.label_words(words) == (" bad", " great")


def test_a_newline_before_the_label_word_stays_in_the_cue():
    template = Template.parse("{text}\n{label_word}")
    assert (template.cue, template.label_words(["no", "yes"])) == ("\n", ("no", "yes"))


def test_masked_templates_may_go_on_after_the_label_word():
    template = Template.parse(". {s1} ? {label_word} , {s2} .", "masked")
    rendered = template.render({"s1": "A", "s2": "B"})
    assert (rendered.text, rendered.cue, rendered.tail) == (". A", " ?", " , B .")
    assert template.label_words(["No", "Yes"]) == (" No", " Yes")
    assert template.columns == ("s1", "s2")


def test_a_masked_label_word_may_come_before_every_column():
    rendered = Template.parse("[ Category: {label_word} ] {content}", "masked").render({"content": "A tree."})
    assert (rendered.text, rendered.cue, rendered.tail) == ("", "[ Category:", " ] A tree.")


def test_doubled_braces_are_literal():
    rendered = Template.parse('{{"q": "{text}"}} {{a}}: {label_word}').render({"text": "hi"})
    assert (rendered.text, rendered.cue) == ('{"q": "hi', '"} {a}:')


def test_braces_in_the_data_are_left_alone():
    assert Template.parse("{text} is {label_word}").render({"text": "{x} {{y}}"}).text == "{x} {{y}}"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{text} It was", "exactly one {label_word}, got 0"),
        ("{text} {label_word} or {label_word}", "exactly one {label_word}, got 2"),
        ("It was {label_word}", "at least one column"),
        ("{text It was {label_word}", "cannot be read"),
        ("{} It was {label_word}", "plain column name"),
        ("{text!r} It was {label_word}", "plain column name"),
        ("{label_word} is the topic of {text}", "must end with {label_word}"),
        ("{text} was {label_word} .", "must end with {label_word}"),
    ],
)
def test_bad_templates_are_refused_with_the_rule(source, message):
    with pytest.raises(TaskError) as caught:
        Template.parse(source)
    assert message in str(caught.value)
    assert repr(source) in str(caught.value)


def test_an_unknown_column_is_answered_with_the_nearest():
    template = Template.parse("{sentense} It was {label_word}")
    with pytest.raises(TaskError, match="did you mean 'sentence'"):
        template.check_columns(["idx", "sentence", "label"], "train.jsonl")


@pytest.mark.parametrize("words", [["good", " good"], ["good", " "], ["good", ""]])
def test_label_words_must_differ_and_hold_something(words):
    with pytest.raises(TaskError, match="different and not empty"):
        Template.parse("{text} It was {label_word}").label_words(words)


def test_a_label_word_that_runs_on_is_warned_about(caplog):
    with caplog.at_level(logging.WARNING):
        Template.parse("{text} It was{label_word}").label_words(["bad", "great"])
    assert "' It was'" in caplog.text
    caplog.clear()
    Template.parse("{text} The answer is choice{label_word}").label_words(["1", "2"])
    assert not caplog.text


@pytest.mark.parametrize(
    ("own", "source", "expected"),
    [
        ("{text} It was{label_word}", "\nLabel:{label_word}", "{text}\nLabel:{label_word}"),
        ("{text} It was {label_word}", "\nLabel:{label_word}", "{text}\nLabel: {label_word}"),
        ("{text}\nTeam:\n{label_word}", " Label:{label_word}", "{text} Label:\n{label_word}"),
        ("{a} {{x}} {b} It was{label_word}", " Label: {label_word}", "{a} {{x}} {b} Label: {label_word}"),
        ("{a} It was{label_word}", "{a}, {b}?{label_word}", "{a}, {b}?{label_word}"),
    ],
)
def test_a_cue_alone_is_another_template_that_ends_as_this_one_does(own, source, expected):
    assert Template.parse(own).other(source) == Template.parse(expected)


def test_a_cue_of_a_masked_template_keeps_what_follows_it():
    template = Template.parse("{a}? {label_word}, {b}", "masked")
    assert template.other(" Answer:{label_word}", "masked").source == "{a} Answer: {label_word}, {b}"
    assert template.other(" So {label_word}.", "masked").source == "{a} So {label_word}."


def test_another_template_is_held_to_the_same_rules():
    with pytest.raises(TaskError, match=r"needs exactly one \{label_word\}, got 0"):
        Template.parse("{text} It was{label_word}").other("\nLabel:")
