"""One module per measure: it runs the children, checks what they did, and adds the numbers."""
