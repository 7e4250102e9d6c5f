"""``orders``: the client as a command line."""
