"""Figures of arrays, by matplotlib."""
