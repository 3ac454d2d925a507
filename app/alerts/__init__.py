"""Alerts at the edge of the house: what is wrong anywhere in it, and how people are reached."""
