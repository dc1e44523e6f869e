"""Bags as they lie on disk: one module for each kind of storage, alike in what they offer (``storage.py``)."""
