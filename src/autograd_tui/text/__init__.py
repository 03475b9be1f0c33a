"""Numbers, sentences and tables as plain styled lines."""
