"""The painter: a closed language of drawings, and a small model that writes the program of a picture."""
