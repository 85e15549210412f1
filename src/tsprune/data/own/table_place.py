"""Places in a user's data, as error lines name them."""

from __future__ import annotations

import bisect
import dataclasses


@dataclasses.dataclass(frozen=True)
class TablePlace:
    """A table, and the names of its rows.

    name : of the table, such as a file's path
    noun : a row's name: "line" of a text file, else "row"
    first : number of the first row: 2 below the header of a text file, 0 of a frame
    files : of a table put together from several: (name, number of its first row in the whole), in order
    comma : whether a decimal comma is likely, as in files with semicolons
    """

    name: str
    noun: str = "row"
    first: int = 0
    files: tuple[tuple[str, int], ...] = ()
    comma: bool = False

    def row(self, index: int) -> str:
        """The name of a row.

        >>> TablePlace("mine.csv", "line", 2).row(3)
        'mine.csv, line 5'
        """
        name, start = self.name, 0
        if self.files:
            at = bisect.bisect_right([start for _, start in self.files], index) - 1
            name, start = self.files[at]
        return f"{name}, {self.noun} {self.first + int(index) - start}"
