"""Outcomes in files: written, rotated, compressed."""
