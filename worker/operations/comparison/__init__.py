"""What is known of a version before it serves: answers of two versions side by side, and the gate of a promotion."""
