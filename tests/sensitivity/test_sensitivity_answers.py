"""What chat models say, and the answers that are read from it (``--answers``)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from holdfast.errors import HoldfastError
from holdfast.sensitivity.answers import gold, rule
from holdfast.sensitivity.sets import Variant


def asking(*options: str, prompt: str = "Which?", target: str | None = None) -> Variant:
    meta = {"options": dict(zip("ABCDEFGHIJ", options))} if options else {}
    return Variant("a", "original", prompt, 0, target, meta)


COLOURS = asking("iron", "blue", "green", "red")

OPTIONS = [
    ("The answer is B.", "blue"),
    ("**B**", "blue"),
    ("Answer: B", "blue"),
    ("It is blue.", "blue"),
    ("A common answer is B.", "blue"),
    ("I would not say A; it is C.", "green"),
    ("Either A or B", None),
    ("A: The answer is: D)", "red"),
    ("None of these", None),
    ("", None),
    ("\\boxed{B}", "blue"),
    ("So the answer is $\\boxed{\\text{B}}$.", "blue"),
    ("\\[\\boxed{\\textbf{(B) blue}}\\]", "blue"),
    ("(B)", "blue"),
    ("option B", "blue"),
    ("Option B.", "blue"),
    ("B) blue", "blue"),
    ("B. blue", "blue"),
    ("b", "blue"),
    ("(b)", "blue"),
    ("b)", "blue"),
    ("[B]", "blue"),
    ("<B>", "blue"),
    ("`B`", "blue"),
    ('"B"', "blue"),
    ('The correct option is "blue".', "blue"),
    ("\u201cblue\u201d", "blue"),
    ("The correct answer is (B) blue.", "blue"),
    ("The answer is **B) blue**.", "blue"),
    ("B, because A is a metal.", "blue"),
    ("The answer is B because A is a metal.", "blue"),
    ("B is correct.", "blue"),
    ("B is the correct answer, since A is a metal", "blue"),
    ("A is wrong. C is wrong. D is wrong.", None),
    ("Not A.", None),
    ("It's not A, it's B.", "blue"),
    ("The answer is not A but B.", "blue"),
    ("The answer is B, not A.", "blue"),
    ("B, not A", "blue"),
    ("A or B", None),
    ("A and B", None),
    ("The answer is A or B.", None),
    ("The answer could be A, or maybe B", None),
    ("Both A and B are correct.", None),
    ("A/B", None),
    ("A, B", None),
    ("I think A or B, but the final answer is B.", "blue"),
    ("First I thought A. Then I reconsidered.\n\nFinal answer: C", "green"),
    ("Let me think. Iron is a metal. Blue is a colour.\n\nB", "blue"),
    ("A) iron\nB) blue\nC) green\nD) red", None),
    ("A) iron\nB) blue\nC) green\nD) red\n\nAnswer: C", "green"),
    ("A) iron\nB) blue\nC) green\nD) red\n\nB", "blue"),
    ("<think>A? no, C. The answer is C.</think>B", "blue"),
    ("<think>It may be A", None),
    ("The answer is:\n\n**B**", "blue"),
    ("#### B", "blue"),
    ("A dog is not a colour, so it must be B", "blue"),
    ("A metal is iron.", "iron"),
    ("I have no idea.", None),
    ("I choose C", "green"),
    ("I'd go with D.", "red"),
    ("My choice: D", "red"),
    ("Therefore, B.", "blue"),
    ("So the answer is D: red", "red"),
    ("Is it A? No. It is B.", "blue"),
    ("Iron", "iron"),
    ("IRON!", "iron"),
    (" blue", "blue"),
    ("The color of the sky is blue", "blue"),
    ("Blueish", None),
    ("B\n\nQ: What?\nA: D", "blue"),
    ("Vitamin A is not here. The answer is D", "red"),
    ("Die Antwort ist B.", "blue"),
    ("La respuesta es B", "blue"),
    ("\u7b54\u6848\u662fB", "blue"),
    ("\u7b54\u6848\uff1aB", "blue"),
    ("I can't decide between A and B.", None),
    ("A is not correct, B is.", "blue"),
    ("We can rule out A and C. D is red, which is not a metal. B remains.", None),
    ("Eliminating A, C and D leaves B.", "blue"),
    ("E", None),
    ("The answer is E.", None),
    ("Option A is iron, which is a metal. Thus, the correct one is option A: iron.", "iron"),
    ("a", "iron"),
    ("A", "iron"),
    ("A.", "iron"),
    ("A iron", "iron"),
    ("A: iron", "iron"),
    ("The answer is A", "iron"),
    ("The answer is a.", "iron"),
    ("The answer is a colour.", None),
    ("A is the best choice.", "iron"),
    ("If A were right, C would be too. The answer is D.", "red"),
    ("Answer: A: iron", "iron"),
    ("**Answer:** B", "blue"),
    ("**Answer: B**\n\nExplanation: A is a metal; C is not.", "blue"),
    ("B: blue. Explanation: unlike A and C, it is the one.", "blue"),
    ("The correct answer is option (C).", "green"),
    ("Final Answer: The final answer is $B$. I hope it is correct.", "blue"),
    ("The best option is D) red.", "red"),
    ("It's either A or B, hard to say.", None),
    ("Neither A nor B; C.", "green"),
    ("Answer: B or C", None),
    ("I'm sorry, I can't answer that.", None),
    ("Sure! The answer is B.", "blue"),
    ("Of the options, iron is a metal, so the answer is iron.", "iron"),
    ("iron and blue", None),
    ("blue, not iron", "blue"),
    ("All of the above", None),
    ("Correct: C", "green"),
    ("~~A~~ B", "blue"),
]

YES_NO = [
    ("No, that is not correct.", "no"),
    ("Yes and no.", None),
    ("Yes", "yes"),
    ("yes.", "yes"),
    ("**No**", "no"),
    ("Answer: No", "no"),
    ("The answer is yes.", "yes"),
    ("No one knows.", None),
    ("I don't know.", None),
    ("Maybe.", None),
    ("", None),
    ("Yes, it is.", "yes"),
    ("True", "yes"),
    ("False.", "no"),
    ("That is correct.", "yes"),
    ("That is not correct.", "no"),
    ("This statement is false.", "no"),
    ("It is true.", "yes"),
    ("Absolutely not.", "no"),
    ("Absolutely!", "yes"),
    ("Ja", "yes"),
    ("Nein.", "no"),
    ("Oui, bien s\xfbr.", "yes"),
    ("S\xed", "yes"),
    ("\u043d\u0435\u0442", "no"),
    ("\u662f", "yes"),
    ("<think>yes yes</think>No.", "no"),
    ("\\boxed{No}", "no"),
    ("Let me think. Water boils at 100.\n\nFinal answer: No", "no"),
    ("Yes.\n\nWait.\n\nThe answer is no.", "no"),
    ("Yes or no? Hard to say.", None),
    ("The answer is yes and no.", None),
    ("The answer is not yes.", "no"),
    ("I would say yes.", "yes"),
    ("Nope", "no"),
    ("It's yes and no.", None),
    ("No. The sun is a star.", "no"),
    ("There is no answer.", None),
    ("No idea.", None),
    ('"Yes"', "yes"),
    ("No - it is not.", "no"),
    ("yes/no", None),
    ("Not sure.", None),
    ("I think the answer would be no, because it rains.", "no"),
    ("Yes, but no longer.", "yes"),
    ("The claim is incorrect.", "no"),
    ("No doubt, yes.", "yes"),
    ("Y", None),
]

NUMBERS = [
    ("about 1,250 kg", "1250"),
    ("between 3 and 4", None),
    ("42", "42"),
    ("The answer is 42.", "42"),
    ("-3", "-3"),
    ("\u22123", "-3"),
    ("3.50", "3.5"),
    ("$1,250.50", "1250.5"),
    ("1.250,50 \u20ac", "1250.5"),
    ("3,5", "3.5"),
    ("1/2", "0.5"),
    ("\\frac{1}{2}", "0.5"),
    ("\\boxed{\\frac{3}{4}}", "0.75"),
    ("2 1/2 cups", "2.5"),
    ("50%", "50"),
    ("50 %", "50"),
    ("3-4", None),
    ("3 to 4", None),
    ("3 or 4", None),
    ("from 3 to 4 days", None),
    ("3\u20134 weeks", None),
    ("1.2e5", "120000"),
    ("1.2 \xd7 10^5", "120000"),
    ("3 million", "3000000"),
    ("seven", "7"),
    ("The answer is twenty-one.", "21"),
    ("12 apples", "12"),
    ("5 + 7 = 12", "12"),
    ("First 5 + 7 = 12. Then 12 - 2 = 10.", "10"),
    ("#### 18", "18"),
    ("So she has 5 apples and 3 pears. Therefore, she has 8 fruits.", "8"),
    ("The answer is 18, which is 3 times 6.", "18"),
    ("", None),
    ("none", None),
    ("2024-05-01", None),
    ("12:30", None),
    ("1. First we add.\n2. Then we take away.\n\nAnswer: 7", "7"),
    ("<think>5</think>6", "6"),
    ("\\boxed{12}", "12"),
    ("The answer is \\boxed{1{,}250}.", "1250"),
    ("1 250 km", "1250"),
    ("1,250,000", "1250000"),
    ("+5", "5"),
    ("3 \xb1 0.2", "3"),
    ("It is not 5 but 6.", "6"),
    ("The total is 42 (6 times 7).", "42"),
    ("roughly 3.14", "3.14"),
    ("x = -2", "-2"),
    ("10 km/h", "10"),
    (".5", "0.5"),
    ("0.1", "0.1"),
    ("1/3", "0.333333333333"),
    ("The final answer is 5.\n\nNote that 12 would be wrong.", "5"),
    ("The number is 3 or 5.", None),
    ("100,000,000", "100000000"),
    ("H2O", None),
    ("5kg", "5"),
    ("9" * 5000, None),
    ("She has 8 fruits (5 apples and 3 pears).", "8"),
    ("The answer is 5 or 6.", None),
    ("Total cost: $18", "18"),
    ("18 dollars", "18"),
    ("He paid 18 dollars.", "18"),
    ("The answer is 3.14159.", "3.14159"),
    ("Answer: 1,000", "1000"),
    ("answer: -0.5", "-0.5"),
    ("1e3", "1000"),
    ("1e999", None),
    ("There are two apples", "2"),
    ("one hundred", "100"),
    ("There are 3 red and 4 blue ones, so 7 in total.", "7"),
    ("3 + 4 = 7 apples", "7"),
    ("It takes 2-3 days.", None),
    ("about 20", "20"),
    ("2,500,000 people", "2500000"),
    ("0", "0"),
    ("The year was 1969.", "1969"),
    ("in 1969, 12 men", None),
    ("**72**", "72"),
    ("72.", "72"),
    ("Answer: 12 (twelve)", "12"),
    ("x=5, y=6", None),
    ("5/0", None),
    ("10^6", None),
    ("\\(12\\)", "12"),
    ("$12$", "12"),
    ("The answer is $12$.", "12"),
    ("~12", "12"),
    ("\u2248 12.5", "12.5"),
    ("<b>12</b>", "12"),
    ("12%", "12"),
    ("-1/2", "-0.5"),
    ("The final answer is 7. I hope it is correct.", "7"),
    ("15-3=12", "12"),
    ("12 - 3", None),
    ("minus 3", "-3"),
    ("The sum is 5+7, i.e. 12.", "12"),
]

FIELDS = [
    ('{"answer": "Blue"}', "blue"),
    ('Sure!\n```json\n{"answer": "B", "why": "x"}\n```\nDone {ok}', "b"),
    ('{"x":{"answer":1}}', None),
    ('{"answer": 1.50}', "1.5"),
    ('{"answer": true}', "true"),
    ('{"answer": null}', None),
    ('{"answer": "B', None),
    ("{" * 1000, None),
    ('{"a":1} then {"answer":"C"}', "c"),
    ('<think>{"answer":"A"}</think>{"answer":"B"}', "b"),
    ('{"answer":"A"} no: {"answer":"B"}', "b"),
]

OTHER_OPTIONS = [
    (asking("3", "4", "12", "13"), "The answer is 12.", "12"),
    (asking("3", "4", "12", "13"), "13", "13"),
    (asking("3", "4", "12", "13"), "12.5", None),
    (asking("3", "4", "12", "13"), "3 + 9 = 12", None),
    (asking("3", "4", "12", "13"), "B", "4"),
    (asking("3", "4", "12", "13"), "4 is right", "4"),
    (asking("3", "4", "12", "13"), "C) 12", "12"),
    (asking("New York", "York", "Leeds", "Bath"), "New York", "new york"),
    (asking("New York", "York", "Leeds", "Bath"), "It is York.", "york"),
    (asking("New York", "York", "Leeds", "Bath"), "York, not New York", "york"),
    (asking("New York", "York", "Leeds", "Bath"), "The capital is New York City.", "new york"),
    (asking("yes", "no"), "Yes", "yes"),
    (asking("yes", "no"), "No.", "no"),
    (asking("yes", "no"), "The answer is no.", "no"),
    (asking("yes", "no"), "A", "yes"),
    (asking("yes", "no"), "Yes, it is. There is no doubt.", "yes"),
    (asking("positive", "negative", "neutral"), "The sentiment is positive.", "positive"),
    (asking("positive", "negative", "neutral"), "Negative", "negative"),
    (asking("positive", "negative", "neutral"), "It is not positive, it is negative.", "negative"),
    (asking("positive", "negative", "neutral"), "Positive. The reviewer was not negative.", "positive"),
    (asking("positive", "negative", "neutral"), "positive or neutral", None),
    (asking("Iron", "Gold", "Both A and B", "None of the above"), "Both A and B", "both a and b"),
    (asking("Iron", "Gold", "Both A and B", "None of the above"), "C", "both a and b"),
    (asking("Iron", "Gold", "Both A and B", "None of the above"), "None of the above.", "none of the above"),
    (asking("Iron", "Gold", "Both A and B", "None of the above"), "The answer is both A and B.", "both a and b"),
    (asking("Iron", "Gold", "Both A and B", "None of the above"), "A", "iron"),
    (asking("u", "v", "w", "x", "y", "z", "p", "q", "r", "s"), "I think it is B.", "v"),
    (asking("u", "v", "w", "x", "y", "z", "p", "q", "r", "s"), "I", "r"),
    (asking("u", "v", "w", "x", "y", "z", "p", "q", "r", "s"), "I.", "r"),
    (asking("u", "v", "w", "x", "y", "z", "p", "q", "r", "s"), "(I)", "r"),
    (asking("u", "v", "w", "x", "y", "z", "p", "q", "r", "s"), "I would choose C", "w"),
    (asking("u", "v", "w", "x", "y", "z", "p", "q", "r", "s"), "I'd say I.", "r"),
    (asking("a", "an", "the", "of"), "the", "the"),
    (asking("a", "an", "the", "of"), "The answer is the.", None),
    (asking("a", "an", "the", "of"), "C", "the"),
    (asking("a", "an", "the", "of"), "B", "an"),
    (asking("It rains. Often.", "It snows.", "Sun"), "It rains. Often.", "it rains. often"),
    (asking("It rains. Often.", "It snows.", "Sun"), "The answer is: It snows.", "it snows"),
    (asking("It rains. Often.", "It snows.", "Sun"), "A", "it rains. often"),
    (asking(prompt="Q: colour?\n(A) red (B) blue (C) green\nA:"), "B", "blue"),
    (asking(prompt="Q: colour?\n(A) red (B) blue (C) green\nA:"), "The answer is green", "green"),
    (asking(prompt="Q: colour?\n(A) red (B) blue (C) green\nA:"), "(A) red", "red"),
    (asking(prompt="Q: colour?\nA) red\nB) blue\nAnswer:"), "B", "blue"),
    (asking(prompt="Q: colour?\nA) red\nB) blue\nAnswer:"), "red", "red"),
    (asking(prompt="(A)red (B)blue"), "B", "blue"),
    (asking(prompt="no options"), "B", None),
    (asking("(", ")", "["), "A", "("),
    (asking("(", ")", "["), "B", ")"),
    (asking("(", ")", "["), ")", None),
    (asking("-1", "1", "0"), "-1", "-1"),
    (asking("-1", "1", "0"), "The answer is 1", "1"),
    (asking("-1", "1", "0"), "The answer is -1", "-1"),
    (asking("C++", "C", "C#"), "C++", "c++"),
    (asking("C++", "C", "C#"), "A", "c++"),
    (asking("C++", "C", "C#"), "It is C#.", "c#"),
    (asking("red", "blue"), "The answer is A. Blue would be wrong because the sky is not red.", "red"),
    (asking("red", "blue"), "Based on the text, the correct choice would be B (blue).", "blue"),
    (asking("red", "blue"), "I believe the answer is A", "red"),
    (asking("red", "blue"), "Let's see. A: red is warm. B: blue is cold. So B.", "blue"),
    (asking("red", "blue"), "**Correct answer: (B)**", "blue"),
    (asking("red", "blue"), "Answer\nB", "blue"),
    (asking("red", "blue"), "The answer is\nB", "blue"),
    (asking("red", "blue"), "_B_", "blue"),
    (asking("red", "blue"), "A? B? I do not know.", None),
    (asking("red", "blue"), "Red is out, blue it is.", "blue"),
    (asking("red", "blue"), "My final choice is red", "red"),
    (asking("red", "blue"), "The answer is option A.", "red"),
    (asking("red", "blue"), "The answer would be: A", "red"),
    (asking("red", "blue"), "Ans: B", "blue"),
    (asking("red", "blue"), "ANSWER: B", "blue"),
    (asking("red", "blue"), "The answer: B. Blue", "blue"),
    (asking("red", "blue"), "B is not the answer. A is.", "red"),
    (asking("red", "blue"), "The right option is not B", None),
    (asking("red", "blue"), "I am going with A", "red"),
    (asking("red", "blue"), "I'd pick blue over red", "blue"),
    (asking("red", "blue"), "answer = B", "blue"),
    (asking("red", "blue"), '{"answer": "B"}', "blue"),
    (asking("red", "blue"), "<answer>B</answer>", "blue"),
    (asking("red", "blue"), "The letter is B", "blue"),
    (asking("red", "blue"), "It cannot be A, so B", "blue"),
    (asking("red", "blue"), "Since it isn't red, the answer must be blue.", "blue"),
    (asking("red", "blue"), "Not red", None),
    (asking("red", "blue"), "A is the answer? No, B is the answer.", "blue"),
]


@pytest.mark.parametrize(("response", "answer"), OPTIONS)
def test_the_option_that_a_response_names(response: str, answer: str | None) -> None:
    assert rule("option")(response, COLOURS) == answer


@pytest.mark.parametrize(("variant", "response", "answer"), OTHER_OPTIONS)
def test_options_that_are_hard_to_tell_apart(variant: Variant, response: str, answer: str | None) -> None:
    assert rule("option")(response, variant) == answer


@pytest.mark.parametrize(("response", "answer"), YES_NO)
def test_yes_or_no(response: str, answer: str | None) -> None:
    assert rule("yes-no")(response, asking()) == answer


@pytest.mark.parametrize(("response", "answer"), NUMBERS)
def test_the_number_of_a_response(response: str, answer: str | None) -> None:
    assert rule("number")(response, asking()) == answer


@pytest.mark.parametrize(("response", "answer"), FIELDS)
def test_a_field_of_json(response: str, answer: str | None) -> None:
    assert rule("json:answer")(response, asking()) == answer


def test_a_field_within_a_field_and_a_list() -> None:
    assert rule("json:x.answer")('{"x": {"answer": [1, "a"]}}', asking()) == '[1, "a"]'


def test_the_last_match_of_a_pattern() -> None:
    response = "<think>ANSWER=A</think>ANSWER=B, no, ANSWER=**C**."
    assert rule(r"regex:ANSWER=(\S+)")(response, asking()) == "c"
    assert rule(r"regex:(\w+)=(?P<answer>\S+)")(response, asking()) == "c"
    assert rule(r"regex:ANSWER=\S+")("none", asking()) is None


def test_a_rule_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_rule.py").write_text("def last(text, variant):\n    return text.split()[-1] if text else None\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_rule", raising=False)
    own = rule("own_rule:last")
    assert own("it is Paris.", asking()) == "paris"
    assert own("", asking()) is None
    assert gold(asking(target="Paris"), own) == "paris"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("optoin", "unknown answer rule 'optoin'; known: auto, first-line, option, yes-no, number, json:FIELD"),
        ("json:", "unknown answer rule"),
        ("regex:(", "no regular expression"),
        ("no_such_module:f", "No module named"),
        ("os:no_such", "no_such"),
        ("os:sep", "is no function"),
    ],
)
def test_rules_that_are_none(name: str, message: str) -> None:
    with pytest.raises(HoldfastError, match=message.replace("(", r"\(")):
        rule(name)


@pytest.mark.parametrize(
    ("name", "variant", "right"),
    [
        ("option", asking("iron", "blue", target="B"), "blue"),
        ("option", asking(prompt="(A) iron (B) blue", target="B"), "blue"),
        ("auto", asking(prompt="(A) iron (B) blue", target="B"), "b"),
        ("number", asking("3", "1,250", target="B"), "1250"),
        ("number", asking(target="1250.0"), "1250"),
        ("yes-no", asking(target="True"), "yes"),
        ("yes-no", asking(target="unclear"), "unclear"),
        ("json:answer", asking(target="Blue"), "blue"),
        ("first-line", asking(target=" Blue. "), "blue"),
        ("first-line", asking(), None),
    ],
)
def test_the_right_answer_has_the_form_of_the_rule(name: str, variant: Variant, right: str | None) -> None:
    assert gold(variant, rule(name)) == right


@pytest.mark.parametrize("piece", ["B ", "A, ", "A\n", "not ", "(A) ", "1,", "{", "\\boxed{", "yes or ", "$", "- "])
def test_no_response_takes_for_ever(piece: str) -> None:
    for name in ("option", "number", "yes-no", "json:answer", "first-line"):
        rule(name)(piece * 5000, COLOURS)
