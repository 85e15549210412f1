"""The laws that a supported model obeys, for everyone who adds a family.

from tsprune.testing import check_conformance
print(check_conformance(tsprune.load("folder/of/a/tiny/model")))
"""

from tsprune.testing.conformance import LAWS, Conformance, Finding, Law, check_conformance
from tsprune.testing.subject import Subject

__all__ = ["LAWS", "Conformance", "Finding", "Law", "Subject", "check_conformance"]
