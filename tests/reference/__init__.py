"""The papers' equations in float64 NumPy and plain loops, independent of the library."""
