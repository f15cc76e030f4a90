"""Published claims and benchmarks, one command each."""
