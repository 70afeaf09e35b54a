//! The in-process stream runtime: its operators and the port through which it reads the log.
