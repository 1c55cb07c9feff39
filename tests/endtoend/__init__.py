"""Whole gateways, as their users meet them. A package, so that what its tests share ends with them."""
