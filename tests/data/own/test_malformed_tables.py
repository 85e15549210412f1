"""Malformed tables: each is refused in one line that names the place, or the remedy."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tsprune.data import from_file
from tsprune.errors import LINE, TspruneError


def daily(*lines: str, header: str = "unique_id,ds,y", first: int = 1) -> str:
    """A table of nine good days of series A, with `lines` between the header and them."""
    days = [f"A,2024-01-{day:02d},{day}" for day in range(first, first + 9)]
    return "\n".join([header, *lines, *days]) + "\n"


def column(name: str, *values: str, of: str = "ds,y") -> str:
    """A table of days, whose last column holds `values`, or 1 where there is none."""
    rows = [f"2024-01-{day:02d},{value}" for day, value in enumerate(values, 1)]
    return "\n".join([of.replace("y", name), *rows]) + "\n"


DAYS = [f"2024-01-{day:02d}" for day in range(1, 10)]
NUMBERS = ["1", "2", "3", "4", "5", "6"]

# a file's suffix, its content, words of the answer
TABLES: dict[str, tuple[str, str | bytes, str]] = {
    "nothing": ("csv", "", "is empty"),
    "blank lines": ("csv", "\n\n \n", "is empty"),
    "only a header": ("csv", "unique_id,ds,y\n", "has no rows"),
    "only empty rows": ("csv", "ds,y\n,\n,\n", "has no rows with values"),
    "no header": (
        "csv",
        "1.5,2024-01-01\n2.5,2024-01-02\n3,2024-01-03\n",
        "add a line with the columns' names",
    ),
    "two columns of one name": ("csv", "ds,y,y\n2024-01-01,1,2\n", "two columns are named 'y'"),
    "a row with more fields": ("csv", daily("A,2023-12-31,1,2"), "line 2: 4 fields; the header has 3"),
    "a row with fewer fields": ("csv", daily("A,2023-12-31"), "line 2: 2 fields; the header has 3"),
    "an open quote": ("csv", daily('A,"2023-12-31,1'), ""),
    "bytes": ("csv", b"\x00\x01\x02\x03" * 40, "not a text file"),
    "words in numbers": ("csv", daily("A,2023-12-31,many"), "line 2: 'many' in column y is not a number"),
    "a unit behind numbers": ("csv", daily("A,2023-12-31,12 kWh"), "line 2: '12 kWh'"),
    "a percent sign": ("csv", daily("A,2023-12-31,12%"), "line 2: '12%'"),
    "a currency": ("csv", daily("A,2023-12-31,€12"), "line 2"),
    "a bad value below": ("csv", column("y", *NUMBERS, "x7"), "line 8: 'x7' in column y is not a number"),
    "commas of two meanings": (
        "csv",
        'ds;y\n2024-01-01;1,5\n2024-01-02;"1,234.5"\n2024-01-03;2\n',
        "line 2: '1,5' in column y has a decimal comma, '1,234.5' in line 3 has not",
    ),
    "a comma that may be either": (
        "tsv",
        "ds\ty\n2024-01-01\t1,234\n2024-01-02\t2,345\n2024-01-03\t3,456\n",
        "line 2: '1,234' in column y may have a decimal comma",
    ),
    "points among decimal commas": (
        "csv",
        "ds;y\n2024-01-01;1,5\n2024-01-02;2.25\n2024-01-03;3\n",
        "line 3: '2.25' in column y has a decimal point",
    ),
    "no numbers": ("csv", column("colour", "red", "green", "blue"), "no column holds numbers"),
    "words in the target": ("csv", column("y", "red", "green", "blue"), "line 2: 'red' in column y is not"),
    "an empty column of values": ("csv", column("y", "", "", ""), r"no windows \(mine: no value\)"),
    "a missing id": ("csv", daily(",2023-12-31,1"), "line 2: the id in column unique_id is missing"),
    "a missing time": ("csv", daily("A,,1"), "line 2: the time in column ds is missing"),
    "a day that is not": ("csv", daily("A,2023-02-30,1"), "line 2: '2023-02-30' in column ds is not a date"),
    "a month that is not": ("csv", daily("A,2023-13-01,1"), "line 2: '2023-13-01'"),
    "an hour that is not": ("csv", daily("A,2023-12-31 25:00,1"), "line 2: '2023-12-31 25:00'"),
    "a word in times": ("csv", daily("A,yesterday,1"), "line 2: 'yesterday' in column ds is not a date"),
    "a mistake in times, beside other times": (
        "csv",
        "date,year,y\n" + "".join(f"{d},2024,1\n" for d in DAYS) + "2024-01-1O,2024,1\n",
        "line 11: '2024-01-1O' in column date",
    ),
    "now": ("csv", daily("A,now,1"), "line 2: 'now'"),
    "years of two digits": (
        "csv",
        "ds,y\n" + "".join(f"0{d}/01/24,1\n" for d in range(1, 9)),
        "line 2: '01/01/24'",
    ),
    "days and months that may be swapped": (
        "csv",
        "ds,y\n01/02/2024,1\n02/03/2024,2\n03/04/2024,3\n",
        "the day or the month may be first",
    ),
    "days and months that are swapped": (
        "csv",
        "ds,y\n13/01/2024,1\n01/14/2024,2\n15/01/2024,3\n",
        "line 3: '01/14/2024'",
    ),
    "zones in some times only": (
        "csv",
        "ds,y\n2024-01-01T00:00Z,1\n2024-01-01T01:00,2\n2024-01-01T02:00Z,3\n",
        "line 3: the time in column ds has no time zone",
    ),
    "two values at one time": ("csv", daily("A,2024-01-03,99"), "a second value of A at the time of line 2"),
    "two values at one time, without ids": (
        "csv",
        column("y", *NUMBERS) + "2024-01-06,0\n",
        "line 8: a second value",
    ),
    "two values in autumn": (
        "csv",
        "ds,y\n"
        + "".join(f"2024-10-27 {h}:00,{n}\n" for n, h in enumerate(["00", "01", "02", "02", "03", "04"])),
        "line 5: a second value at the time of line 4; .* time zone",
    ),
    "one row": ("csv", "ds,y\n2024-01-01,1\n", "too few to infer a frequency; give --freq"),
    "two rows": ("csv", "ds,y\n2024-01-01,1\n2024-01-02,1\n", "too few to infer a frequency; give --freq"),
    "times without a step": (
        "csv",
        "ds,y\n2024-01-01 00:00,1\n2024-01-01 01:00,2\n2024-01-01 02:00,3\n2024-01-01 02:17,4\n",
        "line 5: the time is not a whole number of steps",
    ),
    "a time far away": (
        "csv",
        "ds,y\n1970-01-01 00:00,0\n" + "".join(f"2024-01-01 {h:02d}:00,{h}\n" for h in range(20)),
        "line 3: 21 rows over 473,372 steps",
    ),
    "milliseconds": (
        "csv",
        "ds,y\n" + "".join(f"2024-01-01 00:00:00.{n:03d},{n}\n" for n in range(0, 90, 10)),
        "0.01 s",
    ),
    "no times": ("csv", "y\n1\n2\n3\n4\n", "no dates to infer a frequency from; give --freq"),
    "counted times": ("csv", "t,y\n1,1\n2,2\n3,3\n4,4\n", "no dates to infer a frequency from; give --freq"),
    "fractions as times": ("csv", "time,y\n0.5,1\n0.75,2\n1,3\n", "line 2: 0.5 in column time is not a time"),
    "times of the day": ("csv", "time,y\n12:00,1\n13:00,2\n14:00,3\n", "line 2: '12:00' in column time"),
    "several columns of numbers": (
        "csv",
        "id,ds,sales,price\n" + "".join(f"{i},2024-01-{d:02d},1,2\n" for i in "AB" for d in range(1, 9)),
        r"\(sales, price\); name those to forecast with --target",
    ),
    "all values missing": (
        "csv",
        "ds,y\n" + "".join(f"{d},nan\n" for d in DAYS),
        "no value",
    ),
    "too short for the horizon": (
        "csv",
        "ds,y\n" + "".join(f"{d},1\n" for d in DAYS[:4]),
        "4 steps; 1 windows of 4 need at least 5",
    ),
    "JSON of another kind": ("json", '"text"', "is not an object with a column's name"),
    "JSON of numbers": ("json", "[1, 2, 3]", "row 0: 1 is not an object"),
    "broken JSON": ("json", '[{"ds": "2024-01-01", "y": 1},', "not JSON"),
    "a broken line of JSON": ("jsonl", '{"ds": "2024-01-01", "y": 1}\n{"ds": \n', "line 2: not JSON"),
    "deep JSON": ("json", "[" * 100_000, "not JSON"),
    "mixed values in JSON": (
        "json",
        '[{"ds": "2024-01-01", "y": 1}, {"ds": "2024-01-02", "y": 2}, {"ds": "2024-01-03", "y": "no"}]',
        "row 2: 'no' in column y is not a number",
    ),
    "a target that is text": (
        "jsonl",
        '{"start": "2024-01-01", "freq": "D", "target": ["a", "b"]}\n',
        "lists of string",
    ),
    "an empty target": (
        "jsonl",
        '{"start": "2024-01-01", "freq": "D", "target": []}\n',
        "the target is empty|holds lists",
    ),
    "uneven variates": (
        "jsonl",
        '{"start": "2024-01-01", "freq": "D", "target": [[1, 2], [1]]}\n',
        "variates of 1 and 2 steps",
    ),
    "a start without a frequency": ("jsonl", '{"start": "2024-01-01", "target": [1, 2, 3]}\n', "give --freq"),
    "an unknown frequency": (
        "jsonl",
        '{"start": "2024-01-01", "freq": "often", "target": [1]}\n',
        "unknown frequency",
    ),
    "no Parquet": ("parquet", b"PAR1 this is not a table PAR1", "cannot read"),
    "no Feather": ("feather", b"ARROW1\0\0 nothing", "cannot read"),
    "no gzip": ("csv.gz", b"ds,y\n", "cannot read"),
    "a pickle": ("pkl", b"\x80\x04N.", "no reader for .pkl"),
    "a workbook": ("xlsx", b"PK\x03\x04", "save the sheet as CSV"),
    "no suffix": ("", "ds,y\n", "a file without a suffix"),
}


@pytest.mark.parametrize("name", TABLES)
def test_each_has_one_line(name: str, tmp_path: Path) -> None:
    suffix, content, words = TABLES[name]
    path = tmp_path / f"mine.{suffix}".rstrip(".")
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(TspruneError) as caught:
        from_file(path, horizon=4)
    answer = str(caught.value)
    assert re.search(words, answer), answer
    assert answer.isprintable()
    assert len(answer) < LINE


def test_there_are_sixty() -> None:
    assert len(TABLES) >= 60
