"""What tools/benchmark.py measures: a module per family of modes."""
