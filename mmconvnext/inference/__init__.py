"""Predict on images, score, draw, and gather the pictures on a page."""
