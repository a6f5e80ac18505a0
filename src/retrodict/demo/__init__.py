"""One whole life on real flights: the data, the live traffic, the chapters and their report."""
