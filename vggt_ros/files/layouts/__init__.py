"""How programs and datasets lay out a folder of pictures: one module each, a function ``find`` in each."""
