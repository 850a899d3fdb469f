"""Texts, tables and pages of results.  The only room that imports jinja2 and plotly."""
