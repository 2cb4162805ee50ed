"""From a ledger to numbers, tables, figures and one HTML page. No Ray, no torch; writing rows is left to `ledger`."""

from distributed_tuner.report.html import write_report
from distributed_tuner.report.summary import summarize, write_summary

__all__ = ["summarize", "write_report", "write_summary"]
