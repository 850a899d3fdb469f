"""Figures and the report page: plain arrays in, files out. Only this room imports matplotlib and jinja2."""
