//! Vitals' client.
