"""The data room: files, folders and hub names -> rows with their place (``read``) -> examples and preference pairs;
messages -> text whose every character knows its role (``chat_template``).

    sources   what a source stands for: files of a folder or glob, splits, shares of several
    files     bytes -> text: packed files, encodings, CSV
    read      any source -> rows, each with its place
    shapes    columns, roles and turns as others name them -> ours
    columns   which columns and keys are read, listed or refused
    agent     tools, calls, thoughts and template options of a row
    weights   weights of characters -> weights of tokens
    examples  rows -> examples            pairs  rows -> preference pairs
    joint, conversation, chat_template   messages -> text, and who pays for which character of it
"""
