//! Histories of random logs over a disk that fails, checked against a model after every death.

mod model;
mod scenes;
mod stubborn;
mod write_back;
