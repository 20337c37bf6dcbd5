"""The data room: files, folders and hub names -> rows with their place (``read``) -> examples and preference pairs;
messages -> text whose every character knows its role (``chat_template``).
"""
