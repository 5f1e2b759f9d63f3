"""Charts as inline SVG: no script is needed to read them, no network to load them."""
