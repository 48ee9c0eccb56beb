"""Read and check other people's labels; write a project for a folder."""

from .checker import check, demand
from .findings import DataError, Finding

__all__ = ['DataError', 'Finding', 'check', 'demand']
