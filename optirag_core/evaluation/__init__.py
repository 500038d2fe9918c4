"""Scored pairs + known interactions -> metrics, simple floors beside them, and a report."""
