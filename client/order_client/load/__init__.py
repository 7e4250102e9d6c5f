"""A file of orders sent line by line, once each, however often the sending is interrupted."""
