"""Turns a run directory into figures, a report in one HTML file and a few lines for the terminal.

It reads files only, so it works on a run that is going on, has died or was copied from elsewhere.
"""
