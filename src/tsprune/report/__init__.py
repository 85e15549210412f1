"""Results for people: self-contained pages, a terminal summary, one static picture."""

from tsprune.report.explanation_page import write_explanation
from tsprune.report.picture import write_picture
from tsprune.report.study_page import write_report
from tsprune.report.terminal import print_summary
from tsprune.report.tradeoff_page import write_tradeoff

__all__ = ["print_summary", "write_explanation", "write_picture", "write_report", "write_tradeoff"]
