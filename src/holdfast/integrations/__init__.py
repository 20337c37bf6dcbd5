"""Holdfast inside other people's trainers. Each module imports one of them and nothing here imports a module."""
