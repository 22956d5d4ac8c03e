"""What each format of files says of itself before anybody decodes it, and what it keeps beside the pixels. Standard library only."""
