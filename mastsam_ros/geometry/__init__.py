"""Cameras, and lifting labels to 3D points."""
