//! History: SQLite with compressed stretches of time series in it.
