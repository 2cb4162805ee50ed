"""Report: numbers, tables, figures and one HTML page from a ledger. No Ray, no torch; rows are written by `ledger`."""

from distributed_tuner.report.html import write_report
from distributed_tuner.report.summary import summarize, write_summary

__all__ = ["summarize", "write_report", "write_summary"]
