"""What made the data sets of `pocket`: its world, tasks, wordings and splits. Run only to rebuild the shipped rows or
the embedded model.

In: nothing but code. Out: rows (`splits.py`, `corpus.py`), and what else could be asked in their place
(`alternatives.py`). `../make_pocket_rows.py` writes them into the package, `../build_pocket.py` trains the model on
them.
"""
