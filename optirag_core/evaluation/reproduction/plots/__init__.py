"""Plots of a reproduction. Each is a function from names and figures to a `Picture`, or None without data to draw."""
