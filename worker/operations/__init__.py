"""What an operator looks at and does, from a shell of one's own."""
