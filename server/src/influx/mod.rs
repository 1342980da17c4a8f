//! InfluxDB: reads the journal from a cursor of its own and writes line protocol.
