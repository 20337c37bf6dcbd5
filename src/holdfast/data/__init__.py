"""The data room: files, folders and hub names -> rows with their place (``read``) -> examples and preference pairs."""
