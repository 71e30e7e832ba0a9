"""Vector arithmetic every CPU kernel is made of: lanes, shuffles, left packing."""
