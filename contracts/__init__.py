"""The wire: requests, signal vectors, rejections, control events, heartbeats."""
