"""Image folders: listing, decoding, known true labels, the demo set, export."""
