"""What the generators share: words, names, and a drawing that depends on nothing but its seed."""

# ruff: noqa: SIM905 (lists of words are read as words)
from __future__ import annotations

import random

NAMES = (
    "Ada Bruno Carla Dmitri Elif Farid Greta Hugo Ines Jonas Kofi Lena Mira Nils Olga Pavel Rosa Sven Tara Yusuf"
).split()
THINGS = "apples bottles candles drums eggs forks gloves hats kettles lamps maps nails".split()
CITIES = "Lisbon Oslo Cairo Lima Kyoto Quito Turin Leeds Accra Hanoi Porto Basel".split()
ANIMALS = "ant bear cat deer eel fox goat hen ibex jay kiwi lion mole newt owl pig rat seal toad wolf".split()
COLOURS = "red blue green yellow black white brown pink grey orange".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()


def drawing(task: str, seed: int) -> random.Random:
    """A generator of a task's own."""
    return random.Random(f"{task}:{seed}")  # noqa: S311 (no secret)


def checked(size: int) -> int:
    """Raises ValueError for a size that gives no rows."""
    if not 1 <= size <= 100_000:
        raise ValueError(f"size: expected 1 to 100000, found {size}")
    return size
