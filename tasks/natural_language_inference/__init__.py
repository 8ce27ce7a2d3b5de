"""Natural language inference: does one text make another true."""
