"""Other servers of models, as their documentation has them, and one of an afternoon; and a client of each.

They run in an interpreter of their own (scripts/peers-environment), which has nothing of this repository.
"""
