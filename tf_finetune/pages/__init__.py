"""One HTML page that says what a model was made of, how good it is and where it fails; and its figures."""
