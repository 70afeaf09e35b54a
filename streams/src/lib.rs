//! The in-process stream runtime: a typed plan of operators, tasks that run it beside the data, and
//! the port through which they read and write the log.
//!
//! **Architecture invariant:** nothing here knows a socket, a file, Raft or an async runtime. A task
//! is a state machine (batches in, batches out); what runs it sees the log through
//! [`LogAccess`](log_access::LogAccess) alone.

mod any_format;
mod buffer;
mod chain;
mod committer;
mod explain;
mod format;
mod json;
pub mod log_access;
mod operators;
mod outputs;
mod pipeline;
mod plan;
mod process;
mod record;
mod runner;
mod runtime;
mod stamp;
mod status;
mod steward;
mod stream;
mod task;
pub mod testing;
mod topology;

pub use any_format::{AnyFormat, AnyView, format};
pub use buffer::{Buffer, Emitter};
pub use chain::{Chain, Root};
pub use explain::Explanation;
pub use format::{
    Blob, Borrowed, Format, Int32, Int64, JsonFormat, Malformed, Nullable, Raw, UnknownFormat,
    Utf8, bytes, int32, int64, json, lazy_json, nullable, raw, utf8,
};
pub use json::Json;
pub use operators::{Function, Reject, Rejects};
pub use outputs::{NODE_HEADER, ORIGIN_HEADER, OutputBatch, REASON_HEADER};
pub use pipeline::{Host, Pipeline, PipelineWatch, RunError};
pub use plan::{BuildError, Node, Site};
pub use process::{
    Cx, Entry, Fault, FaultCause, InputBatch, Meter, Meters, NodeId, OnFault, Process, Run, Stop,
};
pub use record::{RawRecord, Record, Source};
pub use runtime::{Runtime, RuntimeConfig, TaskBudget};
pub use status::{NodeStatus, PipelineStatus, Quantiles, TaskInfo};
pub use stream::{End, Stream};
pub use task::StreamTask;
pub use topology::{Program, Topology};
