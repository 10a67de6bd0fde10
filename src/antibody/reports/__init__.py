"""Reports on runs: the terminal's tables, a self-contained page and a model card."""

from antibody.reports.card import write_card
from antibody.reports.html import write_report
from antibody.reports.tables import print_report

__all__ = ["print_report", "write_card", "write_report"]
