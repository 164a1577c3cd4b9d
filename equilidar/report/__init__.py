"""Tables, curves and pictures from finished runs."""
