"""Functions with the names, arguments and meaning that another library gives them."""
