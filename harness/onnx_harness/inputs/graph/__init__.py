"""Find what a graph demands of its inputs: values, sizes, shapes."""
