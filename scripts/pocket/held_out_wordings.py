"""How each task of `pocket` is asked in test data and intents alone: no corpus, train or dev row ever uses these.

In: nothing. Out: `HELD_OUT_WORDINGS[task]`, templates as in `wordings.py`. Every one has a stretch of text (six
letters or more) that no wording in use has, so that a search of training text can prove it absent.
"""

from __future__ import annotations

HELD_OUT_WORDINGS: dict[str, tuple[str, ...]] = {
    "who_has": (
        "{passage} So, who is the one with the {thing}?",
        "Write the name of the person that has the {thing}: {passage}",
        "I want to know who has the {thing}. {passage}",
        "{passage} The {thing}: who has it?",
    ),
    "where_is": (
        "{passage} So, where can I find {person}?",
        "Write the name of the place where {person} is: {passage}",
        "I want to know where {person} is. {passage}",
        "{passage} {person}: where now?",
    ),
    "colour_of": (
        "{passage} So, which colour is the {thing}?",
        "Write the colour that the {thing} has: {passage}",
        "I want to know the colour of the {thing}. {passage}",
        "{passage} The {thing}: what colour?",
    ),
    "yes_no": (
        "{passage} So, {question} Yes or no?",
        "Write yes or no for this: {passage} {question}",
        "I want to know yes or no. {passage} {question}",
        "{question} Find the answer here: {passage}",
    ),
    "sentiment": (
        "{text} So, is the sentiment positive or negative?",
        "Write the sentiment of this: {text}",
        "I want to know if this is negative or positive. {text}",
        "Here is a text: {text} Sentiment?",
    ),
    "topic": (
        "{text} So, which topic is this?",
        "Write the topic of this: {text}",
        "I want to know what this text is about. {text}",
        "Here is a text: {text} Topic?",
    ),
    "opposite": (
        "So, what would be the opposite of {word}?",
        "Write down the opposite for {word}.",
        "I want to know the opposite of {word}.",
        "Here is a word: {word}. Opposite?",
    ),
    "plural": (
        "So, what would be the plural of {word}?",
        "Write down the plural for {word}.",
        "I want to know the plural of {word}.",
        "Here is a word: {word}. Plural?",
    ),
    "category": (
        "So, what would be the category of {word}?",
        "Write down the category for {word}.",
        "I want to know the category of {word}.",
        "Here is a word: {word}. Category?",
    ),
    "odd_one_out": (
        "So, which one is odd here: {words}?",
        "Write down the odd one out of this list: {words}",
        "I want to know the odd one out of {words}.",
        "{words}: which word is odd?",
    ),
    "count": (
        "So, how many words do you count here: {words}?",
        "Write down the count of the words {words}.",
        "I want to know how many words are in {words}.",
        "{words}: how many words?",
    ),
    "largest": (
        "So, which of these is the largest number: {numbers}?",
        "Write down the largest number of this list: {numbers}",
        "I want to know the largest of {numbers}.",
        "{numbers}: which is the largest?",
    ),
    "sort_numbers": (
        "Now sort this list of numbers for me: {numbers}",
        "Write down these numbers in order: {numbers}",
        "I want the numbers {numbers} in order.",
        "{numbers}: sort, small to large.",
    ),
    "reverse": (
        "Now reverse this list of words for me: {words}",
        "Write down these words in reverse order: {words}",
        "I want the words {words} in reverse.",
        "{words}: reverse, last to first.",
    ),
    "drop_first": (
        "Now drop the first word for me: {words}",
        "Write down these words but drop the first: {words}",
        "I want the list {words} without the first word.",
        "{words}: all without the first word.",
    ),
    "add": (
        "So, what would {a} plus {b} be?",
        "Write down what {a} and {b} add up to.",
        "I want to know the sum of {a} and {b}.",
        "Here are two numbers: {a} and {b}. Sum?",
    ),
}
