"""Scores + interactions -> the quality of the model and of its floors, as a report; and the page of a run."""
