"""What stands in the caretaker's repository, file by file: as committed, and as somebody corrected it since."""

README = """# Depot

Counts Northwind's depot and says what has to be ordered.
Shared settings live beside this repository, in ../settings; they are kept by another team.
"""

STOCK_FIRST = '''"""What is on the shelves."""


def count(shelves: dict[str, int]) -> int:
    return sum(shelves.values())
'''

STOCK = (
    STOCK_FIRST
    + '''

def to_order(shelves: dict[str, int], lowest: int) -> list[str]:
    """Goods of which the lowest allowed number, or less, is left."""
    return sorted(name for name, left in shelves.items() if left < lowest)
'''
)
STOCK_CORRECTED = STOCK.replace("if left < lowest", "if left <= lowest")

LABELS = '''"""Labels for the shelves."""


def label(name: str, shelf: int) -> str:
    return f"{shelf:03d} {name}"
'''

OPENING_HOURS = """# Opening hours

Monday to Friday, 7:00 to 15:30. Deliveries until 14:00.
"""

TEST_STOCK = """from depot.stock import to_order


def test_what_runs_low_is_ordered():
    assert to_order({"plates": 2, "hobs": 9}, lowest=3) == ["plates"]
"""
TEST_STOCK_CORRECTED = (
    TEST_STOCK
    + """

def test_the_lowest_allowed_number_is_ordered_too():
    assert to_order({"plates": 3}, lowest=3) == ["plates"]
"""
)
