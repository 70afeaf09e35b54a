//! Kafka's bytes and messages: identifiers, error codes, frames, record batches and wire types.
//!
//! **Architecture invariant:** nothing here does I/O, waits, reads a clock or draws a random
//! number; everything is a function of the bytes handed in.
