"""What studies a trained network: statistics of its results, attacks on its images."""
