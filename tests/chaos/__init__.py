"""Everybody is killed or stopped at any time, under load: `make chaos`, or here `python -m chaos`."""
