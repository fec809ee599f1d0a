"""A module that enables faulthandler as it is imported."""

import faulthandler

from hostile import rereads as rereads  # noqa: PLC0414 - served from here

faulthandler.enable()
