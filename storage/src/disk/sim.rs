//! A disk in memory that crashes, tears, loses what was not synced, fills up and fails.
