"""The benchmarks: the backbone beside what its users would otherwise pick, in one run on one machine."""
