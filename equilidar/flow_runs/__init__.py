"""What `tools/flow.py` does over whole datasets: cache scene flow, measure estimators, distil a network."""
