//! The pipelines that run in this node: their threads, and what operators see of them.
//!
//! A program that embeds the [`Broker`] owns its pipelines; the node only knows them
//! by name, for `/metrics`, for `/pipelines` on the admin listener, and to end them before it closes
//! its logs.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;

use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use vltava_streams::log_access::LogAccess;
use vltava_streams::{
    Host, Pipeline, PipelineStatus, PipelineWatch, Runtime, RuntimeConfig, TaskBudget,
};

use crate::config::broker::BrokerConfig;
use crate::controller::service::Controller;
use crate::embedded::Broker;
use crate::log_access::NodeLogs;
use crate::node::Node;

/// See the module.
pub struct Pipelines {
    config: RuntimeConfig,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Started with the first pipeline.
    runtime: Option<Arc<Runtime>>,
    known: BTreeMap<String, PipelineWatch>,
    is_closed: bool,
}

impl Pipelines {
    /// No pipelines yet. Their threads start with the first one, as the configuration says.
    pub fn new(config: &BrokerConfig) -> Self {
        Self { config: runtime_config(config), state: Mutex::default() }
    }

    fn runtime(&self) -> io::Result<Arc<Runtime>> {
        let mut state = self.state.lock();
        if state.is_closed {
            return Err(io::Error::other("the node ends"));
        }
        if let Some(runtime) = &state.runtime {
            return Ok(runtime.clone());
        }
        let runtime = Arc::new(Runtime::start(self.config)?);
        state.runtime = Some(runtime.clone());
        Ok(runtime)
    }

    fn register(&self, pipeline: &Pipeline) -> bool {
        let mut state = self.state.lock();
        state.known.retain(|_, known| known.upgrade().is_some());
        if state.is_closed || state.known.contains_key(pipeline.name()) {
            return false;
        }
        state.known.insert(pipeline.name().to_owned(), pipeline.watch());
        true
    }

    /// All that run, by name.
    pub fn all(&self) -> Vec<Pipeline> {
        self.state.lock().known.values().filter_map(PipelineWatch::upgrade).collect()
    }

    /// The one that runs under this name.
    pub fn get(&self, name: &str) -> Option<Pipeline> {
        self.state.lock().known.get(name)?.upgrade()
    }

    /// Keeps the pipelines in step with the cluster's topics from now on.
    pub fn observe(self: &Arc<Self>, controller: &Controller) {
        let pipelines = Arc::downgrade(self);
        controller.observe(move |_, _| {
            if let Some(pipelines) = pipelines.upgrade() {
                pipelines.state.lock().known.values().for_each(PipelineWatch::refresh);
            }
        });
    }

    /// Ends all: what they have begun is made safe, their positions are committed, the threads are
    /// joined. Waits: not for a worker.
    pub fn close(&self) {
        let (known, runtime) = {
            let mut state = self.state.lock();
            state.is_closed = true;
            (std::mem::take(&mut state.known), state.runtime.take())
        };
        for pipeline in known.values() {
            pipeline.stop();
        }
        drop(runtime);
    }
}

/// The keys `streams.*`.
fn runtime_config(config: &BrokerConfig) -> RuntimeConfig {
    // The table's bounds leave no negative number.
    let size = |value: i32| usize::try_from(value).unwrap_or(1);
    RuntimeConfig {
        threads: config.streams_threads.map_or_else(|| RuntimeConfig::default().threads, size),
        niceness: config.streams_niceness,
        cpu_share: f64::from(config.streams_cpu_percent) / 100.0,
        budget: TaskBudget {
            pinned_bytes: size(config.streams_task_pinned_bytes),
            uncommitted_bytes: size(config.streams_task_uncommitted_bytes),
        },
    }
}

impl fmt::Debug for Pipelines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.state.lock().known.keys()).finish()
    }
}

impl Host for Broker {
    fn log_access(&self) -> Arc<dyn LogAccess> {
        Arc::new(NodeLogs::new(self.node(), self.runtime().clone()))
    }

    fn runtime(&self) -> io::Result<Arc<Runtime>> {
        self.node().pipelines.runtime()
    }

    fn register(&self, pipeline: &Pipeline) -> bool {
        self.node().pipelines.register(pipeline)
    }
}

/// `GET /pipelines`, `GET /pipelines/<name>`, `POST /pipelines/<name>/pause` and `…/resume`: each
/// answers with [`PipelineStatus`] as JSON, the first with a list of them.
pub fn pages(pipelines: &Arc<Pipelines>) -> Router {
    let all = pipelines.clone();
    let list = move || async move {
        Json(all.all().iter().map(Pipeline::status).collect::<Vec<_>>()).into_response()
    };
    let page = |pipelines: &Arc<Pipelines>, act: fn(&Pipeline)| {
        let pipelines = pipelines.clone();
        move |Path(name): Path<String>| async move { answer(&pipelines, &name, act) }
    };
    Router::new()
        .route("/pipelines", get(list))
        .route("/pipelines/{name}", get(page(pipelines, |_| ())))
        .route("/pipelines/{name}/pause", post(page(pipelines, Pipeline::pause)))
        .route("/pipelines/{name}/resume", post(page(pipelines, Pipeline::resume)))
}

fn answer(pipelines: &Pipelines, name: &str, act: fn(&Pipeline)) -> Response {
    let Some(pipeline) = pipelines.get(name) else {
        let error = serde_json::json!({ "error": format!("there is no pipeline {name}") });
        return (StatusCode::NOT_FOUND, Json(error)).into_response();
    };
    act(&pipeline);
    Json(pipeline.status()).into_response()
}

/// Lets the node's metrics gather from its pipelines.
pub fn gather(node: &Node) {
    node.metrics.gather(PipelineFigures(node.pipelines.clone()));
}

#[derive(Debug)]
struct PipelineFigures(Arc<Pipelines>);

/// Name, help and value of a count of a node.
type NodeFigure = (&'static str, &'static str, fn(&vltava_streams::NodeStatus) -> u64);

const NODE_FIGURES: &[NodeFigure] = &[
    ("pipeline_node_records", "Records that came to a node of a pipeline", |node| node.records),
    ("pipeline_node_bytes", "Bytes of their keys and values", |node| node.bytes),
    ("pipeline_node_rejects", "Records that the node refused", |node| node.rejects),
    ("pipeline_node_faults", "Records that failed in the node", |node| node.faults),
];

/// Name, help and value of a figure of a pipeline.
type PipelineFigure = (&'static str, &'static str, fn(&PipelineStatus) -> f64);

const PIPELINE_FIGURES: &[PipelineFigure] = &[
    ("pipeline_lag_records", "Records not read yet", |p| {
        p.tasks.iter().map(|task| task.lag as f64).sum()
    }),
    ("pipeline_lag_seconds", "Age of the oldest record not read yet", |p| {
        p.tasks.iter().map(|task| task.lag_ms).max().unwrap_or(0) as f64 / 1e3
    }),
    ("pipeline_tasks_stopped", "Tasks that stand still", |p| {
        p.tasks.iter().filter(|task| task.stopped.is_some()).count() as f64
    }),
    ("pipeline_latency_p50_seconds", "Age of half the outputs, when readable", |p| {
        p.latency_us.p50 as f64 / 1e6
    }),
    ("pipeline_latency_p99_seconds", "Age of 99 in 100 outputs, when readable", |p| {
        p.latency_us.p99 as f64 / 1e6
    }),
    ("pipeline_turnaround_p50_seconds", "Half the outputs take no longer in the pipeline", |p| {
        p.turnaround_us.p50 as f64 / 1e6
    }),
    ("pipeline_turnaround_p99_seconds", "99 in 100 outputs take no longer there", |p| {
        p.turnaround_us.p99 as f64 / 1e6
    }),
    ("pipeline_busy_seconds", "Time spent in operators", |p| p.busy_seconds),
];

impl Collector for PipelineFigures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let pipelines: Vec<_> = self.0.all().iter().map(Pipeline::status).collect();
        for (name, help, value) in NODE_FIGURES {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for pipeline in &pipelines {
                for node in &pipeline.nodes {
                    let labels =
                        [("pipeline", pipeline.name.as_str()), ("node", node.name.as_str())];
                    let metric = family.encode_family(&labels)?;
                    ConstCounter::new(value(node)).encode(metric)?;
                }
            }
        }
        for (name, help, value) in PIPELINE_FIGURES {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for pipeline in &pipelines {
                let labels = [("pipeline", pipeline.name.as_str())];
                let metric = family.encode_family(&labels)?;
                ConstGauge::new(value(pipeline)).encode(metric)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::broker::Flags;
    use crate::config::settings::Settings;

    fn config(sets: &[&str]) -> RuntimeConfig {
        let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
        let flags = Flags {
            node_id: vltava_protocol::ids::NodeId(1),
            data_dir: "data".into(),
            listen: ([127, 0, 0, 1], 0).into(),
            advertise: None,
            admin: None,
        };
        let settings = Settings::collect(None, [], &sets).unwrap().settings;
        runtime_config(&BrokerConfig::new(flags, settings).unwrap())
    }

    #[test]
    fn threads_and_budgets_are_configured() {
        assert_eq!(config(&[]), RuntimeConfig::default(), "the defaults are the runtime's own");
        let set = config(&[
            "streams.threads=3",
            "streams.niceness=0",
            "streams.cpu.percent=25",
            "streams.task.pinned.bytes=4096",
            "streams.task.uncommitted.bytes=8192",
        ]);
        let budget = TaskBudget { pinned_bytes: 4096, uncommitted_bytes: 8192 };
        assert_eq!(set, RuntimeConfig { threads: 3, niceness: 0, cpu_share: 0.25, budget });
    }
}
