"""The life of processes: heartbeat, health, metrics, retention, supervision."""
