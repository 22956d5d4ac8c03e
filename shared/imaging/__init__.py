"""Pictures: headers, pixels, files, tiles, quality."""
