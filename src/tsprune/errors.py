"""The one exception users see, and the form of its line."""

from __future__ import annotations

import unicodedata

LINE = 1000  # characters of a whole message
WORD = 240  # of one word in it: a path, a pattern, a name
_CUT = " … "


class TspruneError(Exception):
    """A mistake that a user can correct; the message is one line that says how.

    Control characters in it are escaped, and long words are cut in the middle, whatever a path or pattern of
    the user holds. The command line prints the message and exits with code 2, without a traceback.
    """

    def __init__(self, message: object) -> None:
        super().__init__(one_line(message))


def one_line(text: object, most: int = LINE) -> str:
    """`text` as one printable line of at most `most` characters.

    White space becomes single spaces, control characters and lone surrogates are escaped, and long text loses
    its middle: a message begins with its subject and ends with the remedy.
    """
    words = (_shortened(printable(word), WORD) for word in str(text).split())
    return _shortened(" ".join(words), most)


def printable(text: str) -> str:
    """`text` with escapes such as \\x1b for characters that a terminal would act on or could not show."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(character) for character in text)


def _escaped(character: str) -> str:
    # C: control, format, surrogate, private, unassigned; Zl and Zp end a line
    kind = unicodedata.category(character)
    if kind[0] != "C" and kind not in ("Zl", "Zp"):
        return character
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def _shortened(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    end = (most - len(_CUT)) // 3
    return text[: most - len(_CUT) - end] + _CUT.strip() + text[-end:]


class TspruneWarning(UserWarning):
    """A part that was left out, or a limit on the use of a result; one line, which the shell shows."""

    def __init__(self, message: object) -> None:
        super().__init__(one_line(message))
