//! `vltava serve`: runs a broker until it is told to stop.
//!
//! What can be refused is refused before anything is written: arguments, settings, then ports and
//! the directory. The ready line on standard output says that clients can connect; programs may
//! wait for it. SIGTERM and SIGINT stop in order and end with status 0; a second one ends at once.

use std::fmt::Write as _;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use vltava_protocol::ids::NodeId;

use super::{CommandError, output};
use crate::config::BrokerConfig;
use crate::config::broker::{BROKER_KEYS, Flags, HostPort};
use crate::config::settings::{Collected, Settings, SettingsFile};
use crate::logging::{self, LogFormat};
use crate::node::{BOOT_ID_VARIABLE, Node};

/// Command lines that work.
const EXAMPLES: &str = "Examples:
  vltava serve
  vltava serve --data-dir /var/lib/vltava --listen 0.0.0.0:9092 --advertise broker.example:9092
  vltava serve --set num.partitions=4 --set log.durability=page-cache";

/// `vltava serve`.
#[derive(Debug, Args)]
#[command(after_help = short_help(), after_long_help = long_help())]
pub struct ServeArgs {
    /// Settings: TOML if the name ends in .toml, else Java properties.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where all data lives. Created if it is missing.
    #[arg(long, value_name = "DIR", default_value = "./vltava-data")]
    data_dir: PathBuf,
    /// The address for Kafka clients. Port 0 takes a free one.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9092", value_parser = address)]
    listen: SocketAddr,
    /// The address that clients are told to connect to, if it is another.
    #[arg(long, value_name = "HOST:PORT", value_parser = host_port)]
    advertise: Option<HostPort>,
    /// The address for metrics and health over HTTP, or off.
    #[arg(long, value_name = "HOST:PORT|off", default_value = "127.0.0.1:9644")]
    #[arg(value_parser = admin)]
    admin: Admin,
    /// The id of this node.
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(i32).range(0..))]
    node_id: i32,
    /// Set a key. May be repeated; wins over file and environment.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// What is logged: off, error, warn, info, debug, trace, or a filter.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: String,
    /// Log JSON, one object a line.
    #[arg(long)]
    log_json: bool,
}

/// Where the admin listener is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Admin(Option<SocketAddr>);

/// Runs the command on a runtime with as many workers as there are cores.
pub fn run(args: &ServeArgs) -> Result<(), CommandError> {
    let begun = Instant::now();
    let (config, ignored) = configuration(args)?;
    let format = if args.log_json { LogFormat::Json } else { LogFormat::Text };
    logging::init(&args.log_level, format)
        .map_err(|error| CommandError::Argument(error.to_string()))?;
    for variable in ignored {
        tracing::warn!(variable, "environment variable names no setting");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| CommandError::Io { what: "runtime".to_owned(), error })?;
    runtime.block_on(serve(config, begun))
}

async fn serve(config: BrokerConfig, begun: Instant) -> Result<(), CommandError> {
    let failed = |error| CommandError::Io { what: "signals".to_owned(), error };
    // Before the start, so that a signal during it is not lost.
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let data_dir = config.flags.data_dir.display().to_string();
    let node_id = config.flags.node_id;
    let running =
        Node::start(config).await.map_err(|error| CommandError::Argument(error.to_string()))?;
    let admin = running.admin_addr().map_or_else(|| "off".to_owned(), |addr| addr.to_string());
    output::line(&format!(
        "vltava ready: kafka={} admin={admin} data={data_dir} node={node_id} ({}ms)",
        running.kafka_addr(),
        begun.elapsed().as_millis(),
    ))?;
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
        _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
    }
    let again = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    tokio::select! {
        () = running.shutdown() => Ok(()),
        () = again => {
            // Not by returning, which waits for threads: perhaps for the one that does not end.
            eprintln!("vltava: stopped before the logs were closed");
            std::process::exit(1)
        }
    }
}

/// The configuration of a run, and the environment variables that name no setting.
fn configuration(args: &ServeArgs) -> Result<(BrokerConfig, Vec<String>), CommandError> {
    let refuse = |error: &dyn std::fmt::Display| CommandError::Argument(error.to_string());
    let file = match &args.config {
        None => None,
        Some(path) => {
            let name = path.display().to_string();
            let text = std::fs::read_to_string(path)
                .map_err(|error| CommandError::Io { what: name.clone(), error })?;
            Some((name, text))
        }
    };
    let file = file.as_ref().map(|(path, text)| SettingsFile { path, text });
    let environment = std::env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok().filter(|name| name != BOOT_ID_VARIABLE)?;
        Some((name, value.to_string_lossy().into_owned()))
    });
    let Collected { settings, ignored } =
        Settings::collect(file, environment, &args.sets).map_err(|error| refuse(&error))?;
    let flags = Flags {
        node_id: NodeId(args.node_id),
        data_dir: args.data_dir.clone(),
        listen: args.listen,
        advertise: args.advertise.clone(),
        admin: args.admin.0,
    };
    let config = BrokerConfig::new(flags, settings).map_err(|error| refuse(&error))?;
    Ok((config, ignored))
}

/// Reads an address to listen on; a name is resolved.
fn address(text: &str) -> Result<SocketAddr, String> {
    let mut addresses = text.to_socket_addrs().map_err(|error| error.to_string())?;
    addresses.next().ok_or_else(|| "no address of that name".to_owned())
}

fn admin(text: &str) -> Result<Admin, String> {
    if text == "off" { Ok(Admin(None)) } else { address(text).map(|addr| Admin(Some(addr))) }
}

/// Reads an address to advertise; it need not be resolvable here.
fn host_port(text: &str) -> Result<HostPort, String> {
    let (host, port) = text.rsplit_once(':').ok_or("not of the form HOST:PORT")?;
    let port = port.parse().ok().filter(|&port| port > 0).ok_or("not a port")?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        return Err("no host".to_owned());
    }
    Ok((host.to_owned(), port))
}

fn short_help() -> String {
    format!(
        "{EXAMPLES}\n\nEvery key of --set can also come from a file (--config) or the environment\n\
         (VLTAVA_NUM_PARTITIONS=4). `vltava serve --help` lists them."
    )
}

/// All keys with their defaults, from the table that also parses them.
fn long_help() -> String {
    let mut help = format!(
        "{EXAMPLES}\n\nKeys of --set KEY=VALUE, of the file (--config) and of the environment \
         (VLTAVA_NUM_PARTITIONS=4):\n"
    );
    for key in BROKER_KEYS.iter().filter(|key| !key.internal && key.flag.is_none()) {
        let default =
            key.default.map_or("not set", |text| if text.is_empty() { "''" } else { text });
        let (name, allowed, text) = (key.name, key.allowed(), key.text());
        let _ = write!(help, "\n  {name}  [{default}]  {allowed}\n      {text}\n");
    }
    help
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        assert_eq!(address("127.0.0.1:9092"), Ok("127.0.0.1:9092".parse().unwrap()));
        assert!(address("localhost:9092").unwrap().ip().is_loopback());
        assert!(address("9092").is_err());
        assert_eq!(admin("off"), Ok(Admin(None)));
        assert_eq!(host_port("broker.example:9092"), Ok(("broker.example".into(), 9092)));
        assert_eq!(host_port("[::1]:9092"), Ok(("::1".into(), 9092)));
        for bad in ["broker", "broker:", ":9092", "broker:0", "broker:99999"] {
            assert!(host_port(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_help_lists_every_key_with_its_default() {
        let help = long_help();
        assert!(help.contains("num.partitions  [1]  int >= 1\n"), "{help}");
        assert!(help.contains("log.durability  [fsync]  fsync|page-cache\n"));
        assert!(!help.contains("node.id"), "set by a flag");
    }
}
