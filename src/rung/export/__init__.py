"""Handing a model on: in other programs' formats, compared with them, with a card that says what was found."""
